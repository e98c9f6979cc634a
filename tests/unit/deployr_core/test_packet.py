from __future__ import annotations

import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from deployr_core import packet as packet_module
from deployr_core.packet import (
    Abstained,
    Attempt,
    Censored,
    Delivery,
    DeliveryState,
    Failed,
    FetchRecord,
    InferencePacket,
    Label,
    LabelOutcome,
    ModelRef,
    NotYet,
    Observed,
    Outcome,
    Received,
    Rejected,
    Scored,
    StoredVector,
    Subject,
    Trigger,
    _dated,
    _Record,
)
from deployr_core.packet_ids import derive_delivery_id, derive_label_id, derive_packet_id
from deployr_core.vectorize import FeatureVector

KEY = b"sixteen bytes ok"
NOON = datetime(2015, 1, 6, 12, 0, 0, 1, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)

VECTOR = StoredVector(spec_sha256="d" * 64, size=9, indices=(0, 7), values=(1.0, 47.11))
OUTCOMES: dict[str, Outcome] = {
    "received": Received(lease_until=LATER),
    "scored": Scored(score=1 / 3, vector=VECTOR, coverage={"labs.results": 2}, entity_id="CANARY-entity"),
    "scored with several outputs": Scored(
        score=1 / 3, vector=VECTOR, coverage={}, entity_id=None, outputs={"low": 1 / 3, "normal": 2 / 3, "high": 0.0}
    ),
    "scored with a number": Scored(score=-3.5, vector=VECTOR, coverage={}, entity_id=None, value_unit="g/dL"),
    "abstained": Abstained(reason="too-little-known"),
    "failed": Failed(reason="emr-timeout", retryable=True),
    "rejected": Rejected(reason="wrong-patient"),
}
LABEL_OUTCOMES: dict[str, LabelOutcome] = {
    "observed": Observed(value=1.0, at=NOON, known_at=LATER, source_id="CANARY-source"),
    "observed class": Observed(value="low", at=NOON, known_at=LATER, source_id="CANARY-source"),
    "observed labels": Observed(value={"a": 1.0, "b": 0.0}, at=NOON, known_at=LATER, source_id="CANARY-a CANARY-b"),
    "not-yet": NotYet(ripe_at=LATER),
    "censored": Censored(reason="order-cancelled"),
}


def packet(outcome: Outcome, **changes: Any) -> InferencePacket:
    ordinary = {
        "packet_id": "p" + "0" * 32,
        "site": "site",
        "environment": "test",
        "model": ModelRef(model_id="hematocrit", version="1.0.0", bundle_sha256="b" * 64),
        "trigger": Trigger(
            channel="json", correlation_id="c", request_sha256="r" * 64, received_at=NOON, event_time=NOON
        ),
        "subject": Subject(patient_id="CANARY-patient", encounter_id="CANARY-encounter", order_id="CANARY-order"),
        "as_of": NOON,
        "outcome": outcome,
        "started_at": NOON,
        "updated_at": LATER,
        "fetches": (FetchRecord(resource="Observation", resources=501, pages=3, milliseconds=59.5),),
        "earlier_attempts": (Attempt(started_at=NOON, ended_at=LATER, reason="emr-unreachable"),),
    }
    return InferencePacket(**{**ordinary, **changes})


def label(outcome: Observed | Censored) -> Label:
    return Label(
        label_id="l",
        packet_id="p",
        rule="r",
        outcome=outcome,
        attached_at=LATER,
        history=(Censored(reason="no-result"),),
    )


DELIVERY = Delivery(
    delivery_id="d", packet_id="p", output="o", state=DeliveryState.PENDING, created_at=NOON, updated_at=NOON
)

# Ids


def packet_id(
    key: bytes = KEY, *, environment: str = "test", model_id: str = "hematocrit", request_key: str = "order-1"
) -> str:
    return derive_packet_id(key, environment=environment, model_id=model_id, request_key=request_key)


def test_a_packet_id_is_an_hmac_over_length_prefixed_parts() -> None:
    message = b"4:test10:hematocrit7:order-1"
    assert packet_id() == "p" + hmac.new(KEY, message, hashlib.sha256).hexdigest()[:32]


def test_the_same_request_has_the_same_id() -> None:
    assert packet_id() == packet_id()


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"another sixteen!"},
        {"key": KEY + b"\x01"},
        {"environment": "prod"},
        {"model_id": "hematocrit-2"},
        {"request_key": "order-2"},
        {"request_key": "ORDER-1"},
    ],
    ids=str,
)
def test_another_key_environment_model_or_request_has_another_id(changes: dict[str, Any]) -> None:
    assert packet_id(**changes) != packet_id()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", "d"), ("a", "bc", "d")),
        (("a", "bc", "d"), ("a", "b", "cd")),
        (("a", "", "b"), ("a", "b", "")),
        (("", "", "1:a"), ("", "1:a", "")),
        (("a1:b", "c", "d"), ("a", "b1:c", "d")),
        (("x", "y", "z3:abc"), ("x", "y", "z")),
    ],
    ids=str,
)
def test_different_requests_do_not_run_together(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    names = ("environment", "model_id", "request_key")
    ids = {packet_id(**dict(zip(names, parts, strict=True))) for parts in (one, other)}
    assert len(ids) == 2


PART = st.text(alphabet="a1:0", max_size=5)


@given(one=st.tuples(PART, PART, PART), other=st.tuples(PART, PART, PART))
def test_ids_are_equal_only_for_equal_requests(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    names = ("environment", "model_id", "request_key")
    ids = [packet_id(**dict(zip(names, parts, strict=True))) for parts in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


def test_a_packet_id_tells_nothing_of_the_request_and_can_stand_in_a_url() -> None:
    found = packet_id(request_key="MRN 4711 Jane Doe")
    assert found[0] == "p"
    assert len(found) == 33
    assert set(found[1:]) <= set("0123456789abcdef")


def test_a_key_of_under_16_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        packet_id(b"fifteen bytes..")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        packet_id(b"")


def test_ids_of_deliveries_and_labels_name_their_packet_and_what_they_are_for() -> None:
    assert derive_delivery_id("p1", "score-column") == "p1.score-column"
    assert derive_label_id("p1", "lab-component") == "p1.lab-component"
    assert derive_delivery_id("p1", "flowsheet") != derive_delivery_id("p1", "score-column")


# Records


@pytest.mark.parametrize("kind", OUTCOMES)
def test_a_packet_reads_back_as_it_was_written(kind: str) -> None:
    written = packet(OUTCOMES[kind])
    read = msgspec.json.decode(msgspec.json.encode(written), type=InferencePacket)
    assert read == written
    assert type(read.outcome) is type(written.outcome)
    assert read.as_of.tzinfo is UTC


@pytest.mark.parametrize("kind", OUTCOMES)
def test_an_outcome_says_which_it_is(kind: str) -> None:
    assert json.loads(msgspec.json.encode(packet(OUTCOMES[kind])))["outcome"]["kind"] == kind.partition(" ")[0]


@pytest.mark.parametrize("kind", LABEL_OUTCOMES)
def test_a_label_outcome_reads_back_as_it_was_written(kind: str) -> None:
    content = msgspec.json.encode(LABEL_OUTCOMES[kind])
    assert json.loads(content)["kind"] == kind.partition(" ")[0]
    assert msgspec.json.decode(content, type=LabelOutcome) == LABEL_OUTCOMES[kind]


@pytest.mark.parametrize("kind", ["observed", "censored"])
def test_a_label_reads_back_with_its_history(kind: str) -> None:
    written = label(LABEL_OUTCOMES[kind])
    assert msgspec.json.decode(msgspec.json.encode(written), type=Label) == written


def test_not_yet_is_no_label() -> None:
    content = json.loads(msgspec.json.encode(label(LABEL_OUTCOMES["censored"])))
    content["outcome"] = {"kind": "not-yet", "ripe_at": "2015-01-06T12:00:00Z"}
    with pytest.raises(msgspec.ValidationError, match="not-yet"):
        msgspec.json.decode(json.dumps(content), type=Label)


@pytest.mark.parametrize("state", DeliveryState)
def test_a_delivery_reads_back_as_it_was_written(state: DeliveryState) -> None:
    written = msgspec.structs.replace(DELIVERY, state=state, attempts=3, last_error="emr-timeout")
    assert msgspec.json.decode(msgspec.json.encode(written), type=Delivery) == written


def with_unknown_fields(content: Any) -> Any:
    """Add a field to every object, as a newer writer might; maps of counts or of outputs are no records."""
    match content:
        case dict():
            maps = {"coverage", "outputs", "value"}
            known = {key: value if key in maps else with_unknown_fields(value) for key, value in content.items()}
            return {"brand_new": {"nested": [1, "x", None]}, **known}
        case list():
            return [with_unknown_fields(each) for each in content]
    return content


@pytest.mark.parametrize(
    "record",
    [*(packet(outcome) for outcome in OUTCOMES.values()), DELIVERY, label(LABEL_OUTCOMES["observed"])],
    ids=[*OUTCOMES, "delivery", "label"],
)
def test_unknown_fields_of_a_newer_writer_are_tolerated(record: msgspec.Struct) -> None:
    newer = with_unknown_fields(json.loads(msgspec.json.encode(record)))
    assert "brand_new" in newer
    assert msgspec.json.decode(json.dumps(newer), type=type(record)) == record


@pytest.mark.parametrize("missing", ["packet_id", "subject", "as_of", "outcome", "model"])
def test_a_packet_without_a_required_field_is_refused(missing: str) -> None:
    content = json.loads(msgspec.json.encode(packet(OUTCOMES["failed"])))
    del content[missing]
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.json.decode(json.dumps(content), type=InferencePacket)


def test_a_packet_without_fetches_or_earlier_attempts_has_none() -> None:
    content = json.loads(msgspec.json.encode(packet(OUTCOMES["failed"])))
    del content["fetches"], content["earlier_attempts"], content["schema_version"]
    read = msgspec.json.decode(json.dumps(content), type=InferencePacket)
    assert (read.fetches, read.earlier_attempts, read.schema_version) == ((), (), 2)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_only_a_received_packet_is_not_terminal(kind: str) -> None:
    assert packet(OUTCOMES[kind]).is_terminal == (kind != "received")


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.lists(FINITE.filter(bool), max_size=20), score=st.floats(0, 1))
def test_a_stored_vector_and_score_come_back_to_the_same_bits(values: list[float], score: float) -> None:
    vector = FeatureVector(
        spec_digest="d",
        size=20,
        indices=np.arange(len(values), dtype=np.int32),
        values=np.array(values, dtype=np.float64),
        coverage={},
    )
    written = Scored(score=score, vector=StoredVector.of(vector), coverage={}, entity_id=None)
    read = msgspec.json.decode(msgspec.json.encode(written), type=Scored)
    assert np.array(read.vector.values, dtype=np.float64).tobytes() == vector.values.tobytes()
    assert read.vector.indices == tuple(range(len(values)))
    assert (read.vector.spec_sha256, read.vector.size) == ("d", 20)
    assert read.score.hex() == score.hex()


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.5])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        Scored(score=score, vector=VECTOR, coverage={}, entity_id=None)


@pytest.mark.parametrize("field", ["as_of", "started_at", "updated_at"])
def test_a_packet_refuses_naive_instants(field: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        packet(OUTCOMES["failed"], **{field: NOON.replace(tzinfo=None)})


# Privacy


@dataclass(frozen=True)
class Held:
    held: object


PERSONAL = [
    *(packet(outcome) for outcome in OUTCOMES.values()),
    packet(OUTCOMES["scored"]).subject,
    OUTCOMES["scored"],
    VECTOR,
    LABEL_OUTCOMES["observed"],
    label(LABEL_OUTCOMES["observed"]),
]


def shows_a_canary(text: str) -> bool:
    return any(canary in text for canary in ("CANARY", "47.11", "0.333"))


@pytest.mark.parametrize("record", PERSONAL, ids=lambda record: type(record).__name__)
def test_no_identifier_value_or_score_is_written(record: object) -> None:
    written = (repr(record), str(record), f"{record!r}", repr([record]), repr(Held(record)), repr(ValueError(record)))
    assert not any(shows_a_canary(text) for text in written)


@pytest.mark.parametrize("record", PERSONAL[-5:], ids=lambda record: type(record).__name__)
def test_no_identifier_value_or_score_is_written_by_rich(record: object) -> None:
    assert not shows_a_canary(pretty_repr(record))


def test_a_packet_that_was_stored_before_there_were_several_outputs_still_reads() -> None:
    old = {
        "kind": "scored",
        "score": 0.25,
        "vector": {"spec_sha256": "s", "size": 1, "indices": [], "values": []},
        "coverage": {},
        "entity_id": None,
    }
    scored = msgspec.json.decode(json.dumps(old), type=Scored)
    assert (scored.score, scored.outputs, scored.value_unit) == (0.25, {}, None)


@pytest.mark.parametrize(
    "fields",
    [{"score": 1.5}, {"score": 0.5, "outputs": {"low": -0.1}}, {"score": math.inf, "value_unit": "g/dL"}],
    ids=str,
)
def test_a_score_that_is_neither_a_probability_nor_a_number_in_a_unit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a"):
        Scored(**{"vector": VECTOR, "coverage": {}, "entity_id": None, **fields})


@pytest.mark.parametrize("field", ["as_of", "started_at", "updated_at"])
def test_no_instant_of_a_packet_is_taken_in_another_zone(packet_of, field):
    elsewhere = datetime(2015, 1, 6, 12, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(ValueError, match=f"expected {field} in UTC"):
        packet_of(**{field: elsewhere})


def test_every_field_that_is_declared_to_hold_an_instant_is_looked_at():
    kinds = [each for each in vars(packet_module).values() if isinstance(each, type) and issubclass(each, _Record)]
    declared = {
        (kind, name)
        for kind in kinds
        for holder in kind.__mro__
        for name, hint in vars(holder).get("__annotations__", {}).items()
        if "datetime" in str(hint)
    }
    assert declared == {(kind, name) for kind in kinds for name in _dated(kind)}
    assert len(declared) >= 17
