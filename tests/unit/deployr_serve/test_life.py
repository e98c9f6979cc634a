"""Which state may follow which, for every pair of states there is."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import product
from pathlib import Path

import msgspec
import pytest

from deployr_core.packet import (
    Abstained,
    DeliveryState,
    Failed,
    InferencePacket,
    Received,
    Rejected,
    Sending,
)
from deployr_serve.core.life import (
    DELIVERY_STEPS,
    LABELLED,
    PACKET_STEPS,
    TERMINAL,
    ImpossibleStep,
    PacketState,
    moved,
    sent_again,
    state_of,
    stepped,
)

ROOT = Path(__file__).parents[3]
DELIVERY_DOC = ROOT / "docs" / "delivery.md"
OPEN = ("switched-off", "failed")
ALLOWED = {
    (None, "received"),
    ("received", "received"),
    *(("received", end) for end in ("scored", "abstained", "switched-off", "failed", "rejected")),
    ("failed", "received"),
    ("switched-off", "received"),
}
ALLOWED_DELIVERIES = {
    (None, "pending"),
    (None, "expired"),
    *(("pending", state) for state in ("pending", "sent", "superseded", "expired", "dead")),
    ("dead", "pending"),
}


@pytest.fixture
def in_state(packet_of, now):
    outcomes = {
        "received": Received(lease_until=now),
        "scored": None,
        "abstained": Abstained(reason="sparse"),
        "switched-off": Abstained(reason="switched-off"),
        "failed": Failed(reason="emr-timeout", retryable=True),
        "rejected": Rejected(reason="unknown-patient"),
    }
    return lambda state: None if state is None else packet_of(outcome=outcomes[state])


@pytest.mark.parametrize(("before", "after"), list(product([None, *PacketState], PacketState)))
def test_a_packet_takes_the_steps_of_the_table_and_no_other(in_state, before, after):
    packet = in_state(after)
    assert state_of(packet) == after
    if (before, str(after)) in ALLOWED:
        assert stepped(in_state(before), packet) is packet
    else:
        with pytest.raises(ImpossibleStep, match=f"got {after}"):
            stepped(in_state(before), packet)


@pytest.mark.parametrize(("before", "after"), list(product([None, *DeliveryState], DeliveryState)))
def test_a_delivery_takes_the_steps_of_the_table_and_no_other(delivery_of, before, after):
    delivery = delivery_of(state=after)
    was = None if before is None else delivery_of(state=before)
    if (before, str(after)) in ALLOWED_DELIVERIES:
        assert moved(was, delivery) is delivery
    else:
        with pytest.raises(ImpossibleStep, match=f"got {after}"):
            moved(was, delivery)


def test_a_packet_stays_about_the_same_request(packet_of, received):
    changed = packet_of("p02")
    with pytest.raises(ImpossibleStep, match="the same request"):
        stepped(packet_of(outcome=received), changed)
    other = msgspec.structs.replace(packet_of().trigger, request_sha256="f" * 64)
    with pytest.raises(ImpossibleStep, match="the same request"):
        stepped(packet_of(outcome=received), packet_of(trigger=other))


def test_a_delivery_stays_the_same_packets_to_the_same_output(delivery_of):
    with pytest.raises(ImpossibleStep, match="the same packet's"):
        moved(delivery_of("p01"), delivery_of("p02"))
    with pytest.raises(ImpossibleStep, match="the same packet's"):
        moved(delivery_of(), delivery_of(output="flowsheet"))


def test_a_dead_delivery_that_is_sent_again_keeps_how_it_had_ended(delivery_of, now):
    dead = delivery_of(state=DeliveryState.DEAD, attempts=3, last_error="emr-refused")
    later = now + timedelta(hours=1)
    again = sent_again(dead, now=later)
    ended = Sending(state=DeliveryState.DEAD, ended_at=now, attempts=3, last_error="emr-refused")
    assert (again.state, again.attempts, again.last_error, again.due_at) == (DeliveryState.PENDING, 0, None, later)
    assert again.earlier == (ended,)
    dead_again = msgspec.structs.replace(again, state=DeliveryState.DEAD, attempts=1, last_error="emr-refused")
    assert len(sent_again(dead_again, now=later).earlier) == 2


@pytest.mark.parametrize("state", sorted(set(DeliveryState) - {DeliveryState.DEAD}))
def test_only_a_dead_delivery_is_sent_again_by_hand(delivery_of, now, state):
    with pytest.raises(ImpossibleStep, match="expected a dead delivery"):
        sent_again(delivery_of(state=state), now=now)


def test_only_what_was_scored_is_labelled_and_only_what_ended_is_terminal(in_state):
    assert {PacketState.SCORED} == LABELLED
    assert {state for state in PacketState if in_state(state).is_terminal} == TERMINAL


def test_the_diagram_in_the_docs_has_the_steps_of_the_tables():
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", DELIVERY_DOC.read_text(), re.DOTALL)[1]
    drawn = {tuple(line.partition(" : ")[0].strip().split(" --> ")) for line in diagram.splitlines() if "-->" in line}
    names = {"[*]": None, "switched_off": "switched-off"}
    drawn = {(names.get(a, a), names.get(b, b)) for a, b in drawn if b != "[*]" and b != "labelled"}
    packets = {(came and str(came), str(comes)) for came, each in PACKET_STEPS.items() for comes in each}
    deliveries = {(came and str(came), str(comes)) for came, each in DELIVERY_STEPS.items() for comes in each}
    # What follows from a packet begins at its state in the diagram.
    assert drawn == packets | {("scored" if came is None else came, comes) for came, comes in deliveries}


def test_a_packet_of_schema_version_1_is_still_read():
    body = (Path(__file__).parent / "packet_v1.json").read_bytes()
    packet = msgspec.json.decode(body, type=InferencePacket)
    assert packet.schema_version == 1
    assert (state_of(packet), packet.outcome.score) == (PacketState.SCORED, 0.75)
    assert (packet.patient_hash, packet.trigger.caller) == ("", "")
    assert packet.earlier_attempts[0].reason == "emr-timeout"
    # What it does not know is kept out, and what it says stays as it is.
    kept = msgspec.to_builtins(packet)
    for name, value in msgspec.json.decode(body).items():
        if name != "trigger" and name != "outcome":
            assert msgspec.json.decode(msgspec.json.encode(kept[name])) == value
