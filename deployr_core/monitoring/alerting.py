"""From what rules find to alerts that begin, go on and end: one for each rule, model and part, for as long as it lasts.

An alert begins when a rule has held for as long as it says, and ends when it has not held for as long as it says; what
lies between its two limits, or cannot be told, changes nothing. So whatever flaps faster than that makes one alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from deployr_core.monitoring.alert_rules import AlertRules, Rule, Severity, rules_with_names

FEW = 5
"""Smaller counts are not told: they could be of somebody who can be named."""


class Verdict(StrEnum):
    """``firing``: it holds. ``clear``: it does not. ``between``: under the limit, not under the lower one yet.

    ``unknown``: there is not enough data to tell.
    """

    FIRING = "firing"
    CLEAR = "clear"
    BETWEEN = "between"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says of one model and one part of it, such as an output or a group of features.

    ``model``: empty for the whole site. ``said``: in words, with numbers; nothing of a person.
    """

    rule: str
    model: str
    part: str = ""
    verdict: Verdict
    said: str

    @property
    def key(self) -> str:
        """Give what the alert is called, in command lines too."""
        return key_of(self.rule, self.model, self.part)


class What(StrEnum):
    """What there is to tell of an alert."""

    BEGUN = "begun"
    REMINDER = "reminder"
    ENDED = "ended"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is told of one alert; also the evidence that is kept of it.

    ``is_told``: false where somebody had silenced it. ``notice_id``: the same for the same thing.
    """

    notice_id: str
    what: What
    key: str
    rule: str
    model: str
    part: str
    severity: Severity
    said: str
    begun_at: datetime
    at: datetime
    is_told: bool = True


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """How one alert stands; also one that has not begun yet.

    ``firing_since``: from when on it held without a break longer than its end; ``clear_since``: None while it holds.
    ``told_at``: when it was told last, None if never. ``said``: what was found when it was last looked at.
    """

    rule: str
    model: str
    part: str
    severity: Severity
    said: str
    firing_since: datetime
    begun_at: datetime | None = None
    clear_since: datetime | None = None
    told_at: datetime | None = None


class Silenced(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that somebody has seen to, or does not want to hear of, until an instant, which is not included.

    ``rule``, ``model`` and ``part``: None is any.
    """

    rule: str | None
    model: str | None
    part: str | None
    until: datetime
    by: str
    why: str
    at: datetime

    def covers(self, entry: Entry, *, now: datetime) -> bool:
        """Tell whether the alert is to be quiet now."""
        return (
            self.at <= now < self.until
            and self.rule in {None, entry.rule}
            and self.model in {None, entry.model}
            and self.part in {None, entry.part}
        )


class Advanced(msgspec.Struct, frozen=True, kw_only=True):
    """How alerts stand now, and what there is to tell."""

    entries: Mapping[str, Entry]
    notices: tuple[Notice, ...]


def key_of(rule: str, model: str, part: str) -> str:
    """Give an alert's name: rule, model and part, those that there are."""
    return "/".join((rule, model, part) if part else (rule, model) if model else (rule,))


def advance(
    entries: Mapping[str, Entry],
    findings: Sequence[Finding],
    *,
    rules: AlertRules,
    watched: Iterable[str],
    silences: Sequence[Silenced],
    now: datetime,
) -> Advanced:
    """Take one look into account.

    Args:
        entries: how alerts stood before, by key.
        findings: of this look, one for each key at most. One that is unknown and of no part is of every part that
            stands: the rule could not look at parts at all, such as with too little data.
        rules: in force now.
        watched: names of the rules that this look was about. An alert of theirs without a finding is over: its model
            or output is gone, or the rule is switched off. Alerts of other rules stay as they are.
        silences: that somebody asked for.
        now: of the look, not before the last one; if it is, nothing is taken to have lasted.
    """
    of_model = {model: dict(rules_with_names(rules.of(model))) for model in {each.model for each in findings}}
    told = [each for each in findings if of_model[each.model][each.rule].enabled]
    found = {each.key: each for each in (*_of_parts(told, entries), *told)}
    about = frozenset(watched)
    standing, notices = dict(entries), []
    for key, finding in found.items():
        before = entries.get(key)
        rule = of_model[finding.model][finding.rule]
        after = _moved(before, finding, rule, now=now)
        if after is None:
            standing.pop(key, None)
            if before is not None and before.begun_at is not None:
                notices.append(_ended(key, before, said=finding.said, now=now))
            continue
        standing[key] = after
        if after.begun_at is None:
            continue
        notice = _due(key, after, silences, remind=timedelta(hours=rules.remind_hours), now=now)
        if notice is not None:
            notices.append(notice)
            if notice.is_told:
                standing[key] = msgspec.structs.replace(after, told_at=now)
    for key, entry in entries.items():
        if entry.rule in about and key not in found:
            del standing[key]
            if entry.begun_at is not None:
                notices.append(_ended(key, entry, said="It is not watched any more.", now=now))
    return Advanced(entries=standing, notices=tuple(notices))


def counted(number: int) -> str:
    """Write a count; a small one as ``fewer than 5``."""
    return f"fewer than {FEW}" if 0 < number < FEW else f"{number:,}"


def share_of(hits: int, of: int) -> str:
    """Write a share with what it is out of; nothing that a small count could be worked out from."""
    if of < FEW:
        return f"of {counted(of)}"
    if 0 < hits < FEW:
        return f"{counted(hits)} of {of:,}"
    return f"{hits:,} of {of:,} ({100 * hits / of:.1f} %)"


def _of_parts(findings: Iterable[Finding], entries: Mapping[str, Entry]) -> Iterator[Finding]:
    """Give, of what is unknown as a whole, a finding for each part that an alert stands of."""
    for each in findings:
        if each.verdict is Verdict.UNKNOWN and not each.part:
            for entry in entries.values():
                if (entry.rule, entry.model) == (each.rule, each.model):
                    yield msgspec.structs.replace(each, part=entry.part)


def _moved(entry: Entry | None, finding: Finding, rule: Rule, *, now: datetime) -> Entry | None:
    """Give how the alert stands after this look; None if there is none, or no more."""
    if entry is None:
        if finding.verdict is not Verdict.FIRING:
            return None
        entry = Entry(
            rule=finding.rule,
            model=finding.model,
            part=finding.part,
            severity=rule.severity,
            said=finding.said,
            firing_since=now,
        )
    entry = msgspec.structs.replace(entry, said=finding.said, severity=rule.severity)
    match finding.verdict:
        case Verdict.CLEAR:
            since = entry.clear_since or now
            if entry.begun_at is None or now - since >= timedelta(minutes=rule.end_minutes):
                return None
            return msgspec.structs.replace(entry, clear_since=since)
        case Verdict.FIRING:
            entry = msgspec.structs.replace(entry, clear_since=None)
            if entry.begun_at is None and now - entry.firing_since >= timedelta(minutes=rule.begin_minutes):
                return msgspec.structs.replace(entry, begun_at=now)
    return entry


def _due(key: str, entry: Entry, silences: Sequence[Silenced], *, remind: timedelta, now: datetime) -> Notice | None:
    """Give what is to be told of an alert that has begun; under a silence its beginning is kept, once, and not told."""
    if any(each.covers(entry, now=now) for each in silences):
        is_new = entry.begun_at == now
        return _notice(key, entry, What.BEGUN, said=entry.said, now=now, is_told=False) if is_new else None
    if entry.told_at is None:
        return _notice(key, entry, What.BEGUN, said=entry.said, now=now)
    if entry.clear_since is None and now - entry.told_at >= remind:
        return _notice(key, entry, What.REMINDER, said=entry.said, now=now)
    return None


def _ended(key: str, entry: Entry, *, said: str, now: datetime) -> Notice:
    """Give the end of an alert: told to whom its beginning was told, silenced or not."""
    return _notice(key, entry, What.ENDED, said=said, now=now, is_told=entry.told_at is not None)


def _notice(key: str, entry: Entry, what: What, *, said: str, now: datetime, is_told: bool = True) -> Notice:
    return Notice(
        notice_id=f"{key}.{what}.{now:%Y%m%dT%H%M%SZ}",
        what=what,
        key=key,
        rule=entry.rule,
        model=entry.model,
        part=entry.part,
        severity=entry.severity,
        said=said,
        begun_at=entry.begun_at or entry.firing_since,
        at=now,
        is_told=is_told,
    )
