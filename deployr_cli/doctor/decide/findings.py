"""What a check found, what to do about it, and what all of it amounts to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from deployr_serve.core.errors import ServeError


class State(StrEnum):
    """``fail`` stops the site from going live, ``warn`` should be looked at, ``skipped`` was not checked."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found. ``said`` holds counts, codes and units, never anything of a patient; ``fix`` what to do."""

    check: str
    state: State
    said: str
    fix: str = ""


def ok(check: str, said: str) -> Finding:
    """Give a finding that all is well."""
    return Finding(check=check, state=State.OK, said=said)


def warn(check: str, said: str, fix: str) -> Finding:
    """Give a finding that somebody should look at."""
    return Finding(check=check, state=State.WARN, said=said, fix=fix)


def fail(check: str, said: str, fix: str) -> Finding:
    """Give a finding that has to be fixed."""
    return Finding(check=check, state=State.FAIL, said=said, fix=fix)


def skipped(check: str, said: str) -> Finding:
    """Give the finding of a check that was not made, with the reason."""
    return Finding(check=check, state=State.SKIPPED, said=said)


FIXES: Mapping[str, str] = {
    "emr-unreachable": "Look at the address and the firewall; if the EMR says itself that it is down, ask its team.",
    "emr-timeout": "Ask the EMR's team why this takes so long; DEPLOYR_DEADLINE_S is what a whole request may take.",
    "emr-throttled": "Ask the EMR's team to allow our client more requests.",
    "emr-bad-response": "Ask for the same by hand: a proxy's login page or a wrong base path are the usual causes.",
    "emr-too-large": "Ask the EMR's team why pages do not end; take a test patient with an ordinary record.",
    "emr-incomplete": "Ask the EMR's team why fewer come than are counted; a part is never scored as the whole.",
    "emr-refused": "Have the EMR's team let our client or user in, and allow it this interface.",
    "insufficient-scope": "Have the EMR's team grant our client what the check 'scopes' names.",
    "restricted": "Take a test patient whose record is not restricted.",
    "unknown-patient": "Give --patient the FHIR id of a test patient that this EMR knows.",
    "unknown-context": "Give --encounter the contact serial number of an encounter of the test patient.",
    "wrong-patient": "Take a record that is in use, not merged, and an encounter of this very patient; if so, ask "
    "the EMR's team why other patients' records come back.",
}
"""What to do about an error, by its reason code."""


def failed(check: str, error: ServeError) -> Finding:
    """Give the finding of a call that failed; our errors repeat nothing that came."""
    return fail(check, f"{error.reason}: {error}", FIXES.get(error.reason, "See docs/operating.md for this reason."))


def counted(number: int, noun: str) -> str:
    """Give a count with its noun: ``1 page``, ``12 pages``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(names: Iterable[str], *, most: int = 8) -> str:
    """Give names with commas between, and how many more there are."""
    held = list(names)
    more = f" and {len(held) - most} more" if len(held) > most else ""
    return ", ".join(held[:most]) + more


_UNPRINTABLE = re.compile(r"[^!-~ \u00a1-\u02ff\u0370-\u03ff]")


def shown(text: str | None, *, most: int = 60) -> str:
    """Give what a server wrote, so that it cannot break a line or a terminal: a unit or the name of a system."""
    return _UNPRINTABLE.sub("?", text or "none")[:most]


def settings_findings(message: str) -> list[Finding]:
    """Give a finding for each of the settings that a `SettingsInvalid` complains of."""
    found = []
    for part in re.split(r"; (?=[A-Z][A-Z_]+: )", message.removeprefix("settings: ")):
        name, _, problem = part.partition(": ")
        said = problem or part
        found.append(fail(name if problem else "settings", said, f"In the settings: {said}."))
    return found


def has_failed(findings: Iterable[Finding]) -> bool:
    """Tell whether anything has to be fixed."""
    return any(finding.state is State.FAIL for finding in findings)


def to_fix(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Give what has to be fixed, what blocks others first; checks run in that order."""
    return tuple(finding for finding in findings if finding.state is State.FAIL)


def verdict(findings: Sequence[Finding]) -> str:
    """Give the last line."""
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    parts = [f"{counts[State.OK]} ok", f"{counts[State.FAIL]} to fix"]
    parts += [f"{counts[State.WARN]} to look at"] if counts[State.WARN] else []
    parts += [f"{counts[State.SKIPPED]} skipped"] if counts[State.SKIPPED] else []
    return ", ".join(parts)


def to_json(findings: Sequence[Finding]) -> bytes:
    """Give the findings as JSON; what has to be fixed stands in the order in which it should be."""
    report = {
        "ok": not has_failed(findings),
        "verdict": verdict(findings),
        "findings": findings,
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2)
