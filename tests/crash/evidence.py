"""What must hold at the moment of every death, and what must hold once everything has recovered."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deployr_core.packet import Delivery, DeliveryState, Failed, InferencePacket, Label, Scored
from deployr_serve.core.batch_runs import Run, RunState, all_runs
from deployr_serve.outputs.score_column import _JOB_NAMESPACE
from tests.crash import site

_AS_OF = re.compile(r"as of (\S+)Z\.")
SCORE = 3 / 4
"""Of four training rows with a result, three were positive."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The evidence at one moment. ``written``: what the EMR holds of each output, in the order in which it came."""

    packets: Mapping[str, InferencePacket]
    deliveries: Mapping[str, Delivery]
    labels: tuple[Label, ...]
    runs: tuple[Run, ...]
    written: Mapping[str, Sequence[Any]]
    answers: tuple[Mapping[str, Any], ...]
    repeats: int = field(default=0)


async def look(store: Any, emr: Mapping[str, Any], answers: tuple[Mapping[str, Any], ...], *, now: datetime) -> Seen:
    """Read all that is stored, through the store's own port, and what the EMR was written."""
    packets = await store.packets(model_id=site.MODEL, after=None, limit=1000)
    belongings = [await store.belongings(packet.packet_id) for packet in packets]
    return Seen(
        packets={packet.packet_id: packet for packet in packets},
        deliveries={each.delivery_id: each for owned in belongings for each in owned.deliveries},
        labels=tuple(label for owned in belongings for label in owned.labels),
        runs=await all_runs(store, now=now),
        written=_written(emr),
        answers=answers,
        repeats=sum(not is_new for _, is_new in emr["jobs"]),
    )


def _written(emr: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Give by output what identifies each write: its idempotency key, or else whom and which instant it is about."""
    messages = [(patient_id, _AS_OF.search(" ".join(lines))) for patient_id, lines in emr["messages"]]
    return {
        "score-column": [job_id for _, job_id, _ in emr["column"]],
        "flowsheet": [(patient_id, datetime.fromisoformat(at)) for patient_id, at, _ in emr["flowsheet"]],
        "in-basket": [(patient_id, datetime.fromisoformat(f"{at[1]}+00:00")) for patient_id, at in messages if at],
        "risk-assessment": [delivery_id for _, delivery_id in emr["resources"]],
    }


def _mark(delivery: Delivery, packet: InferencePacket) -> Any:
    """Give what a delivery's write is identified by in `_written`."""
    match delivery.output:
        case "score-column":
            return str(uuid.uuid5(_JOB_NAMESPACE, delivery.delivery_id))
        case "risk-assessment":
            return delivery.delivery_id
        case _:
            return packet.subject.patient_id, packet.as_of


def broken_at_death(seen: Seen, before: Seen | None) -> Iterator[str]:
    """Say what no crash may break, not even until somebody recovers."""
    owners = {
        (one.output, _mark(one, seen.packets[one.packet_id])): seen.packets[one.packet_id]
        for one in seen.deliveries.values()
        if one.packet_id in seen.packets
    }
    for output, marks in seen.written.items():
        times = Counter(map(repr, marks))
        if any(count > 1 for count in times.values()):
            yield f"written-once: {output} has a score {max(times.values())} times"
        held = [owners.get((output, mark)) for mark in marks]
        if any(packet is None or not isinstance(packet.outcome, Scored) for packet in held):
            yield f"evidence-first: {output} has a score that no stored packet accounts for"
        yield from _out_of_order(output, [packet for packet in held if packet is not None])
    yield from _answers_kept(seen)
    arms = {
        (decision.assignment.unit_hash, decision.assignment.arm)
        for packet in seen.packets.values()
        if isinstance(packet.outcome, Scored) and (decision := packet.outcome.decision) and decision.assignment
    }
    if len({unit for unit, _ in arms}) != len(arms):
        yield "one-arm: a unit is in two arms"
    asked = Counter((packet.subject, packet.as_of) for packet in seen.packets.values())
    if any(count > 1 for count in asked.values()):
        yield "one-packet: what was asked once is stored twice"
    if before is not None:
        yield from _changed(seen, before)


def _out_of_order(output: str, packets: Sequence[InferencePacket]) -> Iterator[str]:
    last: dict[str, datetime] = {}
    for packet in packets:
        patient_id = packet.subject.patient_id
        if packet.as_of < last.get(patient_id, packet.as_of):
            yield f"in-order: {output} has an older score after a newer one"
        last[patient_id] = packet.as_of


def _answers_kept(seen: Seen) -> Iterator[str]:
    """What somebody was answered stands in the store, and is answered the same again."""
    told: dict[str, set[str]] = {}
    for answer in seen.answers:
        if answer["status"] != 200 or answer["packet"] is None:
            continue
        packet = seen.packets.get(answer["packet"])
        if packet is None:
            yield "none-lost: an answer was given whose packet is not stored"
        elif not isinstance(packet.outcome, Scored) and SCORED[answer["asked"][0]] in answer["body"]:
            yield "none-lost: a score was answered whose packet is not scored"
        if SCORED[answer["asked"][0]] in answer["body"]:
            told.setdefault(json.dumps(answer["asked"]), set()).add(answer["body"])
    if any(len(bodies) > 1 for bodies in told.values()):
        yield "same-answer: the same question got two answers"


SCORED = {"json": '"score":0.75', "bpa": "<Score>0.75</Score>", "cds": "75 %"}
"""How each channel says the score."""


def _changed(seen: Seen, before: Seen) -> Iterator[str]:
    for packet_id, packet in before.packets.items():
        if packet_id not in seen.packets:
            yield "none-lost: a stored packet is gone"
        elif isinstance(packet.outcome, Scored) and packet != seen.packets[packet_id]:
            yield "settled-stays: a scored packet was changed"
    for delivery_id, delivery in before.deliveries.items():
        if delivery.state is not DeliveryState.PENDING and delivery != seen.deliveries.get(delivery_id):
            yield "settled-stays: a delivery that was settled was changed"


def broken_in_the_end(
    seen: Seen, *, asked: int, outputs: Sequence[str], labelled: bool, ward: bool, in_trouble: bool
) -> Iterator[str]:
    """Say what recovery did not bring to its end.

    Args:
        seen: the evidence after it.
        asked: how many different questions there were.
        outputs: where each score was to go.
        labelled: whether labels were due.
        ward: whether a batch was: nobody asks again for whom it could not score, so that such a packet may be failed.
        in_trouble: whether the store or the EMR failed, too.
    """
    if len(seen.packets) != asked:
        yield f"none-lost: {len(seen.packets)} packets of {asked} questions"
    failed = 0
    for packet in seen.packets.values():
        match packet.outcome:
            case Scored(score=score):
                if score != SCORE:
                    yield "terminal: a packet has another score"
            case Failed() if ward and in_trouble:
                failed += 1
            case other:
                yield f"terminal: a packet is {other.__struct_config__.tag}"
    yield from _undelivered(seen, outputs)
    scored = sum(isinstance(packet.outcome, Scored) for packet in seen.packets.values())
    if labelled and not scored == len(seen.labels) == len({label.packet_id for label in seen.labels}):
        yield f"labelled: {len(seen.labels)} labels of {scored} packets"
    ended = [RunState.INCOMPLETE if failed else RunState.COMPLETE]
    if ward and [run.state for run in seen.runs] != ended:
        yield f"batch-complete: {[(run.state.value, run.reason, run.totals) for run in seen.runs]}"


def _undelivered(seen: Seen, outputs: Sequence[str]) -> Iterator[str]:
    scored = [packet for packet in seen.packets.values() if isinstance(packet.outcome, Scored)]
    wanted = {f"{packet.packet_id}.{output}" for packet in scored for output in outputs}
    if set(seen.deliveries) != wanted:
        yield f"delivered: {len(seen.deliveries)} deliveries of {len(wanted)}"
    newest = {packet.subject.patient_id: packet.packet_id for packet in sorted(scored, key=lambda one: one.as_of)}
    for delivery in seen.deliveries.values():
        times = seen.written[delivery.output].count(_mark(delivery, seen.packets[delivery.packet_id]))
        may_be_lost = delivery.output == "in-basket" and delivery.last_error == "outcome-unknown"
        match delivery.state:
            case DeliveryState.SENT if times == 1:
                pass
            case DeliveryState.DEAD if may_be_lost:
                pass
            case DeliveryState.SUPERSEDED if delivery.packet_id not in newest.values():
                pass
            case state:
                yield f"delivered: {delivery.output} is {state} ({delivery.last_error}), and {times} times in the EMR"
