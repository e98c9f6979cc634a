"""What is written down of every question and of every act of an operator: who, about whom, what came of it.

A record is made at the boundary where somebody is told something, or acts. It holds no identity of a patient: only the
keyed hash that the site alone can make again. It never delays or fails what it is about: a sink that is down is the
sink's to deal with (`AuditSink`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from deployr_core.packet import Abstained, EventKind, Failed, InferencePacket, Received, Rejected, Scored
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import UNEXPECTED, AskDifferently, ServeError
from deployr_serve.core.ports import Clock


class Act(StrEnum):
    """What was done. The first three are asked of the app, the others are an operator's."""

    INFER = "infer"
    FEEDBACK = "feedback"
    FORM = "form"
    SWITCH = "switch"
    SILENCE = "silence"
    DELIVERIES = "deliveries"
    SEND_TEST = "send-test"
    MIGRATE = "migrate"
    EXPORT = "export"
    FORGET = "forget"
    PURGE = "purge"
    REGISTRY = "registry"


class Ending(StrEnum):
    """How it went, as AuditEvent.outcome counts: ``success``, ``minor`` (refused) or ``serious`` (it failed)."""

    SUCCESS = "0"
    MINOR = "4"
    SERIOUS = "8"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRecord:
    """One thing that somebody did.

    ``by``: who, by the name that it proved; empty where nobody did. ``user``: for whom, as the caller says. ``said``:
    what was answered, such as ``scored`` or ``refused``, and ``reason`` a code from the glossary. ``patient_hash``:
    about whom; empty where it is about nobody, or nobody may be named. ``details``: counts and codes by name; never of
    a patient.
    """

    audit_id: str
    at: datetime
    act: Act
    by: str
    said: str
    ending: Ending
    user: str = ""
    channel: str = ""
    correlation_id: str = ""
    reason: str | None = None
    patient_hash: str = ""
    packet_id: str = ""
    model_id: str = ""
    model_version: str = ""
    bundle_sha256: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class AuditSink(Protocol):
    """Where records go."""

    def record(self, record: AuditRecord) -> None:
        """Take a record, at once; whatever goes wrong with it later is told to the operator, never to the caller."""


class NotAudited:
    """For the dev profile and tests: nothing is kept."""

    def record(self, record: AuditRecord) -> None:
        """Let it go."""


@dataclass(kw_only=True, slots=True)
class Call:
    """One call under way; ``by`` is set as soon as it is known who calls."""

    correlation_id: str
    by: str = ""


def answer_id(packet_id: str, correlation_id: str) -> str:
    """Give the id of the record that a call was given a packet's answer: it can be told from the packet alone."""
    return "a" + hashlib.sha256(f"{packet_id} {correlation_id}".encode()).hexdigest()[:32]


def of_answer(
    packet: InferencePacket,
    *,
    at: datetime,
    by: str,
    channel: str,
    correlation_id: str,
    user: str = "",
    replayed: bool = False,
) -> AuditRecord:
    """Give the record that somebody was told what a terminal packet says."""
    details = {"replayed": "1"} if replayed else {}
    reason: str | None = None
    ending = Ending.SUCCESS
    match packet.outcome:
        case Scored(decision=decision):
            said = "scored"
            if decision is not None:
                reason = decision.why
                details |= {"mode": decision.mode.value, "advise": str(int(decision.advise))}
        case Abstained(reason=reason):
            said = "abstained"
        case Rejected(reason=reason):
            said, ending = "rejected", Ending.MINOR
        case Failed(reason=reason):
            said, ending = "failed", Ending.SERIOUS
        case Received():
            said, ending = "unfinished", Ending.SERIOUS
    return AuditRecord(
        audit_id=answer_id(packet.packet_id, correlation_id),
        at=at,
        act=Act.INFER,
        by=by,
        said=said,
        ending=ending,
        channel=channel,
        correlation_id=correlation_id,
        user=user,
        reason=reason,
        patient_hash=packet.patient_hash,
        packet_id=packet.packet_id,
        model_id=packet.model.model_id,
        model_version=packet.model.version,
        bundle_sha256=packet.model.bundle_sha256,
        details=details,
    )


def of_packet(packet: InferencePacket) -> AuditRecord:
    """Give the record of the answer that made the packet, as it was or should have been written down then."""
    trigger = packet.trigger
    return of_answer(
        packet,
        at=packet.updated_at,
        by=trigger.caller,
        channel=trigger.channel,
        correlation_id=trigger.correlation_id,
    )


def of_refusal(
    error: Exception,
    *,
    act: Act,
    at: datetime,
    by: str,
    channel: str,
    correlation_id: str,
    user: str = "",
    patient_hash: str = "",
    model_id: str = "",
) -> AuditRecord:
    """Give the record that a call was not answered; ``patient_hash`` only for a caller that has proved who it is."""
    why = error.why if isinstance(error, CallerRefused) else None
    reason = why or (error.reason if isinstance(error, ServeError) else UNEXPECTED)
    is_refused = isinstance(error, CallerRefused | AskDifferently)
    content = f"{correlation_id} {act} {model_id} {reason} {at.isoformat()}"
    return AuditRecord(
        audit_id="r" + hashlib.sha256(content.encode()).hexdigest()[:32],
        at=at,
        act=act,
        by=by,
        said="not-authenticated" if why else "refused" if is_refused else "failed",
        ending=Ending.MINOR if is_refused else Ending.SERIOUS,
        channel=channel,
        correlation_id=correlation_id,
        user=user,
        reason=reason,
        patient_hash=patient_hash,
        model_id=model_id,
    )


def of_feedback(packet: InferencePacket, kind: EventKind, *, at: datetime, call: Call, channel: str) -> AuditRecord:
    """Give the record that somebody told what became of a packet's advisory."""
    content = f"{packet.packet_id} {kind} {call.correlation_id}"
    return AuditRecord(
        audit_id="f" + hashlib.sha256(content.encode()).hexdigest()[:32],
        at=at,
        act=Act.FEEDBACK,
        by=call.by,
        said=kind.value,
        ending=Ending.SUCCESS,
        channel=channel,
        correlation_id=call.correlation_id,
        patient_hash=packet.patient_hash,
        packet_id=packet.packet_id,
        model_id=packet.model.model_id,
        model_version=packet.model.version,
        bundle_sha256=packet.model.bundle_sha256,
    )


def of_form(model_id: str, *, at: datetime, call: Call, status: int) -> AuditRecord:
    """Give the record that a model was asked by hand, about nobody whom we know of."""
    return AuditRecord(
        audit_id="m" + hashlib.sha256(f"{model_id} {call.correlation_id}".encode()).hexdigest()[:32],
        at=at,
        act=Act.FORM,
        by=call.by,
        said="answered" if status < 400 else "refused",
        ending=Ending.SUCCESS if status < 400 else Ending.MINOR,
        channel="form",
        correlation_id=call.correlation_id,
        model_id=model_id,
    )


def of_operator(
    act: Act,
    *,
    at: datetime,
    by: str,
    said: str,
    ending: Ending = Ending.SUCCESS,
    patient_hash: str = "",
    packet_id: str = "",
    model_id: str = "",
    details: Mapping[str, str] | None = None,
) -> AuditRecord:
    """Give the record of what an operator did, or a timer in the operator's place."""
    content = f"{act} {by} {said} {patient_hash} {packet_id} {at.isoformat()}"
    return AuditRecord(
        audit_id="o" + hashlib.sha256(content.encode()).hexdigest()[:32],
        at=at,
        act=act,
        by=by,
        said=said,
        ending=ending,
        patient_hash=patient_hash,
        packet_id=packet_id,
        model_id=model_id,
        details=details or {},
    )


@contextmanager
def noting_refusals(
    sink: AuditSink, *, clock: Clock, channel: str, correlation_id: str, act: Act = Act.INFER
) -> Iterator[Call]:
    """Write down whatever ends the block in place of an answer, unless it was written down where it was raised."""
    call = Call(correlation_id=correlation_id)
    try:
        yield call
    except Exception as error:
        if not (isinstance(error, ServeError) and error.is_audited):
            record = of_refusal(
                error, act=act, at=clock.now(), by=call.by, channel=channel, correlation_id=correlation_id
            )
            sink.record(record)
        raise
