"""What is written down of an act of the registry: the journal's deed, and the audit's record. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from deployr_core.bundle import Manifest
from deployr_core.registry.comparison import Comparison
from deployr_core.registry.journal import Action, CheckedItem, Deed, Entry, Head
from deployr_core.registry.roles import Person, Reason, RegistryRefused, Wish, expect_may, role_for
from deployr_core.registry.run import Run
from deployr_core.registry.standing import RunStanding, Standing
from deployr_serve.core.audit import Act, AuditRecord, Ending

SIGNED, COMPARED = "signed", "compared with the champion"
"""Items of every checklist, whatever else is on it."""
JOURNAL_DETAIL = "journal"
"""The detail of an audit record that tells how far a model's journal had come, as number and digest."""
BROKEN = "journal-broken"
"""The reason of a failure: the journal is not what was written, and nothing is done by it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShelvedRun:
    """A run as it lies on the shelf, every digest checked. ``run_sha256``: over the bytes of its ``run.json``.

    ``signed_by``: the id of the site's key that signed the bundle; None if none did, and then ``unsigned`` says why.
    ``run_signed_by``, ``run_unsigned``: the same of its ``run.json``. ``comparison``: None if it was not compared yet.
    """

    run: Run
    run_sha256: str
    manifest: Manifest
    signed_by: str | None
    unsigned: str = ""
    run_signed_by: str | None
    run_unsigned: str = ""
    comparison: Comparison | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """Through which channel somebody acts."""

    channel: str
    correlation_id: str = ""


def own_items(shelved: ShelvedRun, standing: Standing) -> tuple[CheckedItem, ...]:
    """Give the items that the registry itself puts on the checklist of an approval."""
    lacking = shelved.unsigned or shelved.run_unsigned
    champion = standing.champion
    is_compared = champion in standing.runs[shelved.run.run_id].compared_with
    if champion is None:
        said = "there is no champion yet"
    else:
        said = f"with {champion}" if is_compared else f"the journal has no comparison with {champion}"
    return (
        CheckedItem(item=SIGNED, passed=not lacking, said=lacking or f"by the site's key {shelved.signed_by}"),
        CheckedItem(item=COMPARED, passed=champion is None or is_compared, said=said),
    )


def deed_of(wish: Wish, by: Person, standing: Standing, shelved: ShelvedRun | None, *, at: datetime) -> Deed:
    """Give what is to be written, from how things stand.

    Args:
        wish: what is wanted.
        by: who wants it.
        standing: how things stand.
        shelved: the run as it lies there, where the act is about what is in it.
        at: when.

    Raises:
        RegistryRefused: they may not.
    """
    action = wish.action
    if action is Action.APPROVED and shelved is not None:
        wish = replace(wish, checklist=(*own_items(shelved, standing), *wish.checklist))
    expect_may(wish, by, standing)
    deed = Deed(
        at=at, who=by.name, role=role_for(by, action, standing.model_id) or "", action=action, why=wish.why.strip()
    )
    if action is Action.REGISTERED and shelved is not None:
        return msgspec.structs.replace(
            deed,
            run_id=shelved.run.run_id,
            run_sha256=shelved.run_sha256,
            bundle_sha256=shelved.run.bundle_sha256,
            deploy_type=shelved.run.deploy_type,
            trained_by=shelved.run.trained_by,
        )
    if action in {Action.OPENED, Action.VOUCHED}:
        return deed
    run = standing.runs[(standing.champion or "") if action is Action.ROLLED_BACK else wish.run_id]
    deed = msgspec.structs.replace(
        deed,
        run_id=run.run_id,
        run_sha256=run.run_sha256,
        bundle_sha256=run.bundle_sha256,
        deploy_type=run.deploy_type,
    )
    match action:
        case Action.COMPARED:
            comparison = _comparison_of(shelved, run)
            against = comparison.champion.name
            return msgspec.structs.replace(deed, replaces=against, evidence_sha256=comparison.sha256)
        case Action.APPROVED:
            return msgspec.structs.replace(deed, checklist=wish.checklist)
        case Action.DEPLOYED | Action.EXPORTED:
            return msgspec.structs.replace(deed, replaces=standing.champion)
        case Action.ROLLED_BACK:
            back = standing.may_go_back()
            return msgspec.structs.replace(deed, replaces=None if back is None else back.run_id)
    return deed


def refused_deed(refusal: RegistryRefused, wish: Wish, by: Person, standing: Standing, *, at: datetime) -> Deed:
    """Give what is to be written of something that was tried and refused."""
    run = standing.runs.get(wish.run_id)
    return Deed(
        at=at,
        who=by.name,
        role=",".join(sorted(by.roles_for(standing.model_id))),
        action=Action.REFUSED,
        # An id that is no run's is only a text that came in.
        run_id="" if run is None else run.run_id,
        tried=wish.action,
        reason=refusal.reason,
    )


def _audit_id(content: str) -> str:
    return "g" + hashlib.sha256(content.encode()).hexdigest()[:32]


def of_entry(entry: Entry, call: Call) -> AuditRecord:
    """Give the audit record of an entry. It tells how far the journal has come: what is cut off later is missed."""
    is_refused = entry.action is Action.REFUSED
    return AuditRecord(
        audit_id=_audit_id(entry.sha256),
        at=entry.at,
        act=Act.REGISTRY,
        by=entry.who,
        said=entry.action,
        ending=Ending.MINOR if is_refused else Ending.SUCCESS,
        reason=entry.reason or None,
        channel=call.channel,
        correlation_id=call.correlation_id,
        model_id=entry.model_id,
        bundle_sha256=entry.bundle_sha256,
        details={"run": entry.run_id, "role": entry.role, "tried": entry.tried, JOURNAL_DETAIL: str(entry.head)},
    )


def of_repeat(entry: Entry, by: Person, call: Call, *, at: datetime) -> AuditRecord:
    """Give the audit record that somebody put in place again what an entry had made the champion."""
    again = f"{entry.sha256} {by.name} {call.correlation_id} {at.isoformat()}"
    record = of_entry(entry, call)
    return replace(
        record,
        audit_id=_audit_id(again),
        at=at,
        by=by.name,
        details={**record.details, "role": ",".join(sorted(by.roles_for(entry.model_id))), "again": "1"},
    )


def of_unwritten(tried: str, by: Person, call: Call, *, reason: str, at: datetime, model_id: str = "") -> AuditRecord:
    """Give the audit record of something that was tried and stands in no journal.

    Args:
        tried: what was tried.
        by: who tried it.
        call: through which channel.
        reason: why it was not done; `BROKEN` is a failure, anything else a refusal.
        at: when.
        model_id: empty where no model of that name has a journal: it is only a text that came in.
    """
    content = f"{model_id} {by.name} {tried} {reason} {call.correlation_id} {at.isoformat()}"
    return AuditRecord(
        audit_id=_audit_id(content),
        at=at,
        act=Act.REGISTRY,
        by=by.name,
        said="failed" if reason == BROKEN else Action.REFUSED,
        ending=Ending.SERIOUS if reason == BROKEN else Ending.MINOR,
        reason=reason,
        channel=call.channel,
        correlation_id=call.correlation_id,
        model_id=model_id,
        details={"role": ",".join(sorted(by.roles)), "tried": tried},
    )


def head_in(detail: str) -> Head | None:
    """Give the head that an audit record tells; None if it is none."""
    number, _, digest = detail.partition(":")
    return Head(number=int(number), sha256=digest) if number.isdecimal() and digest else None


def _comparison_of(shelved: ShelvedRun | None, run: RunStanding) -> Comparison:
    comparison = None if shelved is None else shelved.comparison
    if comparison is None:
        raise RegistryRefused(Reason.NOT_USABLE, f"{run.run_id}: expected a comparison.json beside its run.json")
    if comparison.challenger.bundle_sha256 != run.bundle_sha256:
        raise RegistryRefused(Reason.NOT_USABLE, f"{run.run_id}: expected a comparison of this run's own bundle")
    return comparison
