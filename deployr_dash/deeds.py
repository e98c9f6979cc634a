"""Deeds from the dashboard: what is offered, how it is sent to the app, how the answer reads, and the command. Pure.

The dashboard decides nothing and may do nothing: a deed goes to the app's route with the proof of who is signed in, and
the app's roles decide, and audit. Where there is no such proof, the page shows the command that does the same.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from deployr_core.registry.journal import LONGEST_WHY, Action, CheckedItem
from deployr_core.registry.roles import NextStep, next_steps
from deployr_core.registry.standing import Standing


@dataclass(frozen=True, kw_only=True, slots=True)
class Deed:
    """What somebody may do to a run. ``verb``: of `deployr models`, and of the route. ``says``: what the button says.

    ``means``: what follows from it, in a sentence. ``needs_why``: it takes a reason.
    """

    action: Action
    verb: str
    says: str
    means: str
    needs_why: bool = True


DEEDS: Mapping[str, Deed] = {
    each.verb: each
    for each in (
        Deed(
            action=Action.APPROVED,
            verb="approve",
            says="Approve",
            means="It may go live from then on; it does not yet. Nobody approves what they trained or registered.",
        ),
        Deed(
            action=Action.REJECTED,
            verb="reject",
            says="Reject",
            means="It may not go live, for good: a rejected run never comes back.",
        ),
        Deed(
            action=Action.DEPLOYED,
            verb="deploy",
            says="Deploy",
            means="It takes the champion’s place while requests run; the earlier bundle stays for the way back.",
            needs_why=False,
        ),
        Deed(
            action=Action.EXPORTED,
            verb="export",
            says="Export",
            means="It becomes the champion, and its bundle is written into a folder for another platform.",
            needs_why=False,
        ),
        Deed(
            action=Action.ROLLED_BACK,
            verb="rollback",
            says="Roll back",
            means="The champion is withdrawn within seconds, and the one before it is back. The withdrawn run comes"
            " back by another approval only.",
        ),
        Deed(
            action=Action.RETIRED,
            verb="retire",
            says="Retire",
            means="It is taken out of use for good. Of a champion, nothing of the model is shown any more.",
        ),
    )
}
"""By verb."""
BY_COMMAND = frozenset({Action.EXPORTED})
"""These write a folder on a machine, so that the app has no route for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offered:
    """A deed that is possible now, and who may do it."""

    deed: Deed
    step: NextStep


def offered(standing: Standing, run_id: str) -> tuple[Offered, ...]:
    """Give what may be done to a run now, whoever asks; the app decides who may."""
    by_action = {each.action: each for each in DEEDS.values()}
    return tuple(
        Offered(deed=by_action[step.action], step=step) for step in next_steps(standing) if step.run_id == run_id
    )


def who_may(step: NextStep) -> str:
    """Say who may do it: ``approver, but not ada``."""
    others = f", but not {' or '.join(step.not_by)}" if step.not_by else ""
    return f"{' or '.join(step.roles)}{others}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What somebody wants done. ``checklist``: what they were shown before they approved, but for the registry's own.

    ``unmet``: how many of all that they were shown did not pass.
    """

    deed: Deed
    model_id: str
    run_id: str
    why: str = ""
    despite: bool = False
    checklist: tuple[CheckedItem, ...] = field(default=(), repr=False)
    unmet: int = 0


def missing(wanted: Wanted) -> str:
    """Say what has to be filled in first; empty where nothing has."""
    if wanted.deed.needs_why and not wanted.why.strip():
        return f"To {wanted.deed.says.lower()} takes a reason in words; it stays on record."
    if len(wanted.why) > LONGEST_WHY:
        return f"A reason has at most {LONGEST_WHY:,} characters."
    if wanted.unmet and not wanted.despite:
        return "The checklist is not met: say that you approve all the same, or do not."
    return ""


def command(wanted: Wanted, *, program: str, options: str, extract: str) -> str:
    """Give the command that does it, to be typed by whoever may.

    Args:
        wanted: what; without a reason a place is left for one.
        program: how `deployr` is called for the site.
        options: what finds the site, such as ``--settings local.settings.json``.
        extract: what finds the extract, for the checklist of an approval.
    """
    deed = wanted.deed
    is_export = deed.action is Action.EXPORTED
    parts = ["models", "deploy" if is_export else deed.verb, wanted.model_id]
    parts += [] if deed.action is Action.ROLLED_BACK else [wanted.run_id]
    if wanted.why.strip() or deed.needs_why:
        parts += ["--why", " ".join(wanted.why.split()) or "..."]
    line = f"{program} {shlex.join(parts)}"
    if wanted.despite and deed.action is Action.APPROVED:
        line += " --despite-failed"
    if is_export:
        line += " --to FOLDER"
    if deed.action is Action.APPROVED and extract:
        line += f" {extract}"
    return f"{line} {options}".strip()


def route_of(wanted: Wanted) -> str:
    """Give the app's route, without a slash before it."""
    model = f"api/registry/models/{quote(wanted.model_id, safe='')}"
    if wanted.deed.action is Action.ROLLED_BACK:
        return f"{model}/rollback"
    return f"{model}/runs/{quote(wanted.run_id, safe='')}/{wanted.deed.verb}"


def body_of(wanted: Wanted) -> bytes:
    """Give the body of the call."""
    content: dict[str, Any] = {"why": wanted.why.strip()}
    if wanted.deed.action is Action.APPROVED:
        items = [{"item": each.item, "passed": each.passed, "said": each.said} for each in wanted.checklist]
        content |= {"despite_failed": wanted.despite, "checklist": items}
    return json.dumps(content).encode()


class Ended(StrEnum):
    """What became of it: done, refused for a reason, or nobody knows."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a deed, in sentences for who did it."""

    ended: Ended
    said: tuple[str, ...]


class SendsDeeds(Protocol):
    """The way to the app. Nothing is sent but the deed and the proof of who does it."""

    def send(self, wanted: Wanted, *, authorization: str) -> Outcome:
        """Send a deed under somebody's own proof, the value of a header ``Authorization``."""


def outcome_of(status: int, body: bytes) -> Outcome:
    """Read the app's answer.

    Args:
        status: of the answer.
        body: of the answer; what is not ours is not shown.
    """
    told = _told(body)
    said, known = told.get("said"), _PLAIN.get(str(told.get("reason")))
    if status == HTTPStatus.OK:
        entry, note = told.get("entry"), told.get("note")
        if not isinstance(entry, dict):
            return _strange(status)
        done = f"Done, by {entry.get('who')} as {entry.get('role')}: entry {entry.get('number')} of the journal."
        return Outcome(ended=Ended.DONE, said=(done, *([f"To be seen to: {note}."] if note else [])))
    if status == HTTPStatus.UNAUTHORIZED:
        return Outcome(ended=Ended.REFUSED, said=_NO_PROOF)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # Also what a gateway answers in the app's place: the app may be at it, or have done it.
        heard = f"The app says: {_sentence(said)}" if isinstance(said, str) else _not_ours(status)
        return Outcome(ended=Ended.UNKNOWN, said=(heard, LOOK_FIRST))
    if not isinstance(said, str):
        return _strange(status)
    return Outcome(
        ended=Ended.REFUSED, said=(*([known] if known else []), f"The app says: {_sentence(said)}", _ON_RECORD)
    )


UNREACHED = Outcome(
    ended=Ended.REFUSED,
    said=("The app does not answer, and nothing was sent. Try again when it runs, or run the command on its machine.",),
)
LOOK_FIRST = "Nobody knows yet whether it was done: look at the history before you do it again."
UNANSWERED = Outcome(ended=Ended.UNKNOWN, said=("The app was asked and did not answer in time.", LOOK_FIRST))
_ON_RECORD = "Nothing was changed. That it was tried is on record."
_NO_PROOF = (
    "The app does not take your proof of who you are: it has run out, or is not for this app.",
    "Sign out and in again, then decide again. If that does not help, DEPLOYR_DASH_APP_KEY is not the app’s.",
)
_PLAIN = {
    "not-your-role": "Your role does not allow this.",
    "own-run": "You trained or registered this run yourself: it takes a second pair of eyes.",
    "wrong-stage": "The run is not at a stage any more from which this can be done: somebody was faster.",
    "already-there": "That is how it is already.",
    "not-signed": "Nobody whose key this site trusts has signed the bundle.",
    "caller-not-allowed": "You are signed in, and this app does not know you: its operator lists who may decide.",
    "too-many-requests": "That was too often in a short time. Wait a moment.",
}
"""By the app's code, what it means for whoever reads the page."""


def _strange(status: int) -> Outcome:
    where = "Look at DEPLOYR_DASH_APP, DEPLOYR_DASH_APP_KEY, and whether the app has DEPLOYR_REGISTRY_PEOPLE."
    return Outcome(ended=Ended.REFUSED, said=(_not_ours(status), where))


def _not_ours(status: int) -> str:
    return f"What answered (status {status}) is not this app’s registry."


def _told(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _sentence(said: str) -> str:
    return said if said.endswith((".", "!", "?")) else f"{said}."
