"""The registry in JSON: what is asked over HTTP, what is answered there, and what commands print with ``--json``. Pure.

Names are those of the records themselves, and entries are given as they are stored: whoever reads them can compute
their digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from deployr_core.registry.journal import Action, CheckedItem, Entry, JournalBroken
from deployr_core.registry.roles import Reason, RegistryRefused, Wish, next_steps
from deployr_core.registry.standing import Standing
from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, ServeError, UnsupportedMediaType
from deployr_serve.core.registry_deeds import BROKEN, ShelvedRun
from deployr_serve.core.registry_journal import Journal, Verdict
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.triggers.json_request import HttpAnswer
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR, UNEXPECTED

CHANNEL = "registry"
MOST_BYTES = 100_000

ACTS: Mapping[str, Action] = {
    "register": Action.REGISTERED,
    "compare": Action.COMPARED,
    "approve": Action.APPROVED,
    "reject": Action.REJECTED,
    "deploy": Action.DEPLOYED,
    "retire": Action.RETIRED,
}
"""What can be asked of a run, by the last part of its route."""

STATUS_OF: Mapping[Reason, int] = {
    Reason.NOT_YOUR_ROLE: 403,
    Reason.OWN_RUN: 403,
    Reason.NO_WHY: 422,
    Reason.FAILED_ITEMS: 422,
    Reason.UNKNOWN_RUN: 404,
    Reason.ALREADY_THERE: 409,
    Reason.WRONG_STAGE: 409,
    Reason.WRONG_DEPLOY_TYPE: 409,
    Reason.NOTHING_TO_GO_BACK_TO: 409,
    Reason.NOT_SIGNED: 409,
    Reason.NOT_AS_REGISTERED: 409,
    Reason.NOT_USABLE: 409,
}


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of an act. ``despite_failed``: approves although items of the checklist failed."""

    why: str = ""
    despite_failed: bool = False
    checklist: tuple[CheckedItem, ...] = ()


def parse_act(body: bytes, *, content_type: str | None, action: Action, run_id: str) -> Wish:
    """Read what somebody wants done.

    Raises:
        UnsupportedMediaType, RequestTooLarge, MalformedRequest: it is not read.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("expected application/json")
    if len(body) > MOST_BYTES:
        raise RequestTooLarge(f"expected at most {MOST_BYTES} bytes")
    try:
        asked = msgspec.convert(parse_object(body), Asked)
        # A half of a character passes JSON, and could not be stored.
        msgspec.json.encode(asked)
    except (NotOneObject, msgspec.ValidationError, UnicodeEncodeError):
        raise MalformedRequest("expected why, and perhaps despite_failed and checklist") from None
    return Wish(action=action, run_id=run_id, why=asked.why, checklist=asked.checklist, despite=asked.despite_failed)


def standing_told(standing: Standing) -> dict[str, Any]:
    """Give how a model stands: its champion, its runs, and what may be done next by whom."""
    return {
        "model_id": standing.model_id,
        "champion": standing.champion,
        "head": msgspec.to_builtins(standing.head),
        "opened": standing.opened,
        "runs": [msgspec.to_builtins(run) for run in standing.runs.values()],
        "next": [msgspec.to_builtins(step) for step in next_steps(standing)],
    }


def journal_told(journal: Journal) -> dict[str, Any]:
    """Give how a model stands, and every entry of its journal as it is stored."""
    return {**standing_told(journal.standing), "journal": [msgspec.to_builtins(entry) for entry in journal.entries]}


def run_told(run: ShelvedRun) -> dict[str, Any]:
    """Give a run as it lies on the shelf."""
    return {
        "run": msgspec.to_builtins(run.run),
        "run_sha256": run.run_sha256,
        "version": run.manifest.version,
        "signed_by": run.signed_by,
        "run_signed_by": run.run_signed_by,
        "comparison": msgspec.to_builtins(run.comparison),
    }


def done_told(entry: Entry, note: str) -> dict[str, Any]:
    """Give what was done, as the journal says it, and what has still to be seen to."""
    return {"entry": msgspec.to_builtins(entry), "note": note}


def verdict_told(verdict: Verdict) -> dict[str, Any]:
    """Give what was found of a journal: whether it is whole, and with how many heads told elsewhere it was compared."""
    return {
        "model_id": verdict.model_id,
        "is_whole": verdict.fault is None,
        "entries": verdict.entries,
        "signed_entries": verdict.signed,
        "compared_heads": verdict.compared,
        "fault": msgspec.to_builtins(verdict.fault),
    }


def answer(told: object, *, status: int = 200) -> HttpAnswer:
    """Give an answer of JSON."""
    return HttpAnswer(status=status, body=msgspec.json.encode(told), content_type="application/json", headers={})


def refusal(error: RegistryRefused) -> HttpAnswer:
    """Give the answer to what is not done, with its code and the sentence that says what would help."""
    return answer({"reason": error.reason, "said": str(error)}, status=STATUS_OF[error.reason])


def broken(error: JournalBroken) -> HttpAnswer:
    """Give the answer where a journal is not what was written."""
    return answer({"reason": BROKEN, "said": str(error)}, status=500)


def failure(error: ServeError | None) -> HttpAnswer:
    """Give the answer to what could not be asked; None: nobody foresaw it."""
    known = UNEXPECTED if error is None else ANSWER_OF_ERROR[type(error)]
    reason = "unexpected" if error is None else error.reason
    told = answer({"reason": reason, "said": known.text}, status=known.status)
    if known.retry_after_s is not None:
        told.headers["Retry-After"] = str(known.retry_after_s)
    return told
