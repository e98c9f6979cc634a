"""Whether drift is an alarm: looked at each day, for a year, without crying wolf.

Each day the last week and the last four weeks are held against the reference period, kind by kind. Within a kind false
discoveries are controlled over all its variables; over kinds, windows and the days of a year the rule is set so that
less than one alarm a year is false. Its numbers were chosen by simulation (docs/drift-alarms.md), not by taste.

What is kept of a day is its `DriftLook`: hand the looks of the days before to the next day's decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import numpy as np

from deployr_core.bootstrap import Interval
from deployr_core.monitoring.drift import Drift, Drifts
from deployr_core.monitoring.drift_kinds import volume_change
from deployr_core.monitoring.drift_reference import ReferencePeriod, recurrence
from deployr_core.monitoring.served_rows import DriftKind, ServedRows

FEWEST_ROWS = 50
"""Under so many rows a kind is not looked at: every difference would be chance."""
_MOST = 5
_WEEK = timedelta(weeks=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlarmRule:
    """When changes are an alarm.

    ``windows``: how many days before now are looked at together, whole weeks, each for itself. ``levels``: by window,
    what a kind's p has to be at most. ``looks``: on how many daily looks running, this one among them, it has to be so.
    """

    windows: tuple[int, ...] = (7, 28)
    levels: tuple[float, ...] = (1e-3, 3e-4)
    looks: int = 2


RULE = AlarmRule()


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One variable that has changed, as `deployr_core.monitoring.drift.Drift` has it; None for what has no value."""

    name: str
    q: float
    psi: float | None
    psi_by_chance: float | None
    share_before: float | None
    share_now: float | None
    score_shift: float | None


class KindLook(msgspec.Struct, frozen=True, kw_only=True):
    """One kind in one window.

    ``p``: the chance of so clear a change of any of the kind's variables if there is none (Simes); None where it could
    not be told. ``tested``: how many variables there were. ``moved``: those that have changed by more than chance,
    those that move the score most first, at most five.
    """

    kind: DriftKind
    days: int
    rows: int
    tested: int
    p: float | None
    moved: tuple[Moved, ...] = ()


class DriftLook(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found. ``until``: the end of its windows, excluded, aware UTC.

    ``score_shift``: by how much the mean score of the longest window is above that of the reference period.
    """

    until: datetime
    kinds: tuple[KindLook, ...]
    score_shift: float | None

    def of(self, kind: DriftKind, days: int) -> KindLook | None:
        """Give one kind in one window."""
        return next((each for each in self.kinds if (each.kind, each.days) == (kind, days)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftAlarm:
    """The decision of a day.

    ``raised``: there is an alarm. ``kinds``: what has drifted, the clearest first. ``why``: in a sentence. ``moved``:
    the variables that show it, those that move the score most first. ``score_shift``: what it does to the mean score,
    seen in the scores themselves. ``look``: to be kept for the days to come.
    """

    raised: bool
    kinds: tuple[DriftKind, ...]
    why: str
    moved: tuple[Moved, ...]
    score_shift: float | None
    look: DriftLook


def drift_alarm(
    reference: ReferencePeriod, rows: ServedRows, history: Sequence[DriftLook] = (), *, rule: AlarmRule = RULE
) -> DriftAlarm:
    """Decide whether what was served up to now has drifted.

    Args:
        reference: of the bundle that served the rows.
        rows: those up to now, ``rows.until``; more than the longest window does no harm, less shortens it.
        history: the looks of the days before, in order of time; without them nothing can be confirmed, and a rule that
            asks for two looks is first met on the second day.
        rule: when it is an alarm.

    Raises:
        ValueError: features of another bundle.
    """
    return decided((*history, drift_look(reference, rows, rule=rule)), rule=rule)


def drift_look(reference: ReferencePeriod, rows: ServedRows, *, rule: AlarmRule = RULE) -> DriftLook:
    """Hold the windows that end with the rows against the reference period, none of which they take in.

    A window that would reach into it, or to before the rows, is cut to so many whole weeks as there are; without one
    it is left out.

    Raises:
        ValueError: features of another bundle.
    """
    kinds: list[KindLook] = []
    shift: float | None = None
    begins = max(reference.until, rows.since)
    for days in rule.windows:
        # Whole weeks, or a weekend more or less would be a change.
        length = min(timedelta(days=days), (rows.until - begins) // _WEEK * _WEEK)
        if length <= timedelta():
            continue
        window = rows.between(rows.until - length, rows.until)
        kinds += [look for kind in DriftKind if (look := _kind_look(reference, window, kind, days)) is not None]
        shift = _score_shift(reference, window) if window.rows else shift
    return DriftLook(until=rows.until, kinds=tuple(kinds), score_shift=shift)


def decided(looks: Sequence[DriftLook], *, rule: AlarmRule = RULE) -> DriftAlarm:
    """Decide by looks, of which the last is now.

    Raises:
        ValueError: no look.
    """
    if not looks:
        raise ValueError("expected at least one look")
    now, before = looks[-1], looks[-rule.looks : -1]
    found: list[KindLook] = []
    for days, level in zip(rule.windows, rule.levels, strict=True):
        for kind in DriftKind:
            each = now.of(kind, days)
            if each is None or not _is_past(each, level) or len(before) < rule.looks - 1:
                continue
            if all(_is_past(earlier.of(kind, days), level) for earlier in before):
                found.append(each)
    found.sort(key=lambda each: each.p if each.p is not None else 1.0)
    kinds = tuple(dict.fromkeys(each.kind for each in found))
    by_name = {(each.kind, moved.name): moved for each in reversed(found) for moved in each.moved}
    moved = sorted(by_name.values(), key=lambda each: -abs(each.score_shift or 0.0))
    return DriftAlarm(
        raised=bool(found),
        kinds=kinds,
        why=_why(found, rule),
        moved=tuple(moved[:_MOST]),
        score_shift=now.score_shift,
        look=now,
    )


def _is_past(look: KindLook | None, level: float) -> bool:
    return look is not None and look.p is not None and look.p <= level


def _why(found: Sequence[KindLook], rule: AlarmRule) -> str:
    if not found:
        return "Nothing has changed by more than chance explains."
    clearest = {each.kind: each for each in reversed(found)}
    told = []
    for kind in dict.fromkeys(each.kind for each in found):
        names = ", ".join(each.name for each in clearest[kind].moved[:3])
        told.append(f"{kind.value} in the last {clearest[kind].days} days{f' ({names})' if names else ''}")
    running = f" on {rule.looks} looks running" if rule.looks > 1 else ""
    return f"Different from the reference period{running}: {'; '.join(told)}."


def _kind_look(reference: ReferencePeriod, window: ServedRows, kind: DriftKind, days: int) -> KindLook | None:
    if kind is DriftKind.VOLUME:
        return _volume_look(reference, window, days)
    now = window.of_kind(kind)
    if now.rows.rows < FEWEST_ROWS:
        return None
    found = reference.drift(kind, now)
    if found is None:
        return None
    return KindLook(
        kind=kind,
        days=days,
        rows=now.rows.rows,
        tested=int(np.isfinite(found.p).sum()),
        p=_smallest(found),
        moved=tuple(_moved(each) for each in found.ranked(_MOST) if each.is_found),
    )


def _volume_look(reference: ReferencePeriod, window: ServedRows, days: int) -> KindLook:
    """Hold the requests a day against those of before; patients who come again and days that differ make it vary."""
    before, now = reference.daily, window.daily()
    change = volume_change(before, now)
    expected = float(before.mean()) * now.size
    if not now.sum():
        # As likely as that none of the patients comes who should have come.
        p = math.exp(-expected / reference.recurrence)
    else:
        by_patients = reference.recurrence / before.sum() + recurrence(window.patients) / now.sum()
        by_days = 0.0
        if isinstance(change.ratio, Interval) and 0.0 < change.p < 1.0:
            by_days = (math.log(change.ratio.high / change.ratio.low) / (2 * 1.959964)) ** 2
        p = math.erfc(abs(math.log(change.now / change.before)) / math.sqrt(2 * max(by_patients, by_days)))
    moved = Moved(
        name="requests a day",
        q=p,
        psi=None,
        psi_by_chance=None,
        share_before=change.before,
        share_now=change.now,
        score_shift=None,
    )
    return KindLook(
        kind=DriftKind.VOLUME, days=days, rows=window.rows, tested=1, p=p, moved=(moved,) if p <= 0.05 else ()
    )


def _score_shift(reference: ReferencePeriod, window: ServedRows) -> float | None:
    held = reference.kinds.get(DriftKind.SCORES)
    scores = window.scores[np.isfinite(window.scores)]
    if held is None or not scores.size:
        return None
    cells = held.counts.cells
    before = float((cells.counts * np.nan_to_num(held.counts.positions)).sum() / cells.counts[:, 1:].sum())
    return float(scores.mean()) - before


def _smallest(found: Drifts) -> float | None:
    """Give the p of no change at all: the smallest q (Simes).

    Source: R. J. Simes (1986), Biometrika 73:751-754, doi:10.1093/biomet/73.3.751.
    """
    known = found.q[np.isfinite(found.q)]
    return float(known.min()) if known.size else None


def _moved(drift: Drift) -> Moved:
    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return Moved(
        name=drift.name,
        q=drift.q,
        psi=known(drift.psi),
        psi_by_chance=known(drift.psi_by_chance),
        share_before=known(drift.share_before),
        share_now=known(drift.share_now),
        score_shift=known(drift.score_shift),
    )
