"""What comes back for an order that was signed on the screen: by the patient's own chart, the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mock_emr.laboratory import Laboratory
from mock_emr.store import Store
from mock_emr.written import Written

Stores = Callable[..., Store]
Resource = dict[str, Any]

CBC = {"coding": [{"system": "http://loinc.org", "code": "58410-2"}]}
SIGNED = datetime(2015, 1, 6, 9, 30, tzinfo=UTC)


def order(name: str, signed: str, patient: str = "p1", code: Resource = CBC) -> Resource:
    subject = {"reference": f"Patient/{patient}"}
    return {"resourceType": "ServiceRequest", "id": name, "status": "active", "code": code, "subject": subject,
            "authoredOn": signed}  # fmt: skip


def result(name: str, drawn: str, issued: str, value: float, based_on: str, patient: str = "p1") -> Resource:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": drawn,
        "issued": issued,
        "valueQuantity": {"value": value, "unit": "g/dL"},
        "referenceRange": [{"low": {"value": 12.0}, "high": {"value": 16.0}}],
        "basedOn": [{"reference": f"ServiceRequest/{based_on}"}],
    }


PATIENTS = [{"resourceType": "Patient", "id": "p1"}, {"resourceType": "Patient", "id": "p2"}]
DAY_BEFORE = (
    order("o1", "2015-01-05T09:30:00Z"),
    result("l1", "2015-01-05T10:00:00Z", "2015-01-05T10:20:00Z", 10.0, "o1"),
)
DAY_AFTER = (
    order("o2", "2015-01-07T09:30:00Z"),
    result("l2", "2015-01-07T10:00:00Z", "2015-01-07T10:20:00Z", 12.1, "o2"),
)
NEW = order("w1", "2015-01-06T09:30:00Z")


def value_of(found: Resource) -> float:
    value: float = found["valueQuantity"]["value"]
    return value


def test_it_comes_as_late_as_the_orders_before_and_lies_between_the_results_around_it(store_of: Stores) -> None:
    laboratory = Laboratory(store_of(*PATIENTS, *DAY_BEFORE, *DAY_AFTER))

    [(at, made)] = laboratory.results(NEW, linked=True)

    assert at == datetime(2015, 1, 6, 10, 20, tzinfo=UTC)
    assert (made["effectiveDateTime"], made["issued"]) == ("2015-01-06T10:00:00Z", "2015-01-06T10:20:00Z")
    assert made["basedOn"] == [{"reference": "ServiceRequest/w1"}]
    # Halfway between 10.0 and 12.1, as ratios: the root of 121. Noise is 1 %, so four of them are 0.44.
    assert math.isclose(value_of(made), 11.0, abs_tol=0.44)
    assert made["interpretation"][0]["coding"][0]["code"] == "L"
    assert value_of(made) == round(value_of(made), 1)


def test_the_same_seed_gives_the_same_result_and_another_one_another(store_of: Stores) -> None:
    store = store_of(*PATIENTS, *DAY_BEFORE)
    first, again = (Laboratory(store, seed=1).results(NEW, linked=True) for _ in range(2))
    others = {value_of(Laboratory(store, seed=seed).results(NEW, linked=True)[0][1]) for seed in range(20)}

    assert first == again
    assert len(others) > 1


def test_somebody_who_never_had_the_test_gets_one_as_others_had_it(store_of: Stores) -> None:
    laboratory = Laboratory(store_of(*PATIENTS, *DAY_BEFORE))

    [(at, made)] = laboratory.results(order("w1", "2015-01-06T09:30:00Z", patient="p2"), linked=False)

    assert at == datetime(2015, 1, 6, 10, 20, tzinfo=UTC)
    assert made["subject"] == {"reference": "Patient/p2"}
    assert "basedOn" not in made
    # The middle of the range is 14.0; noise is 10 %, so four of them are a factor of 1.49.
    assert 14.0 / 1.5 < value_of(made) < 14.0 * 1.5


def test_of_a_test_that_never_had_a_result_nothing_comes(store_of: Stores) -> None:
    unknown = {"coding": [{"system": "http://loinc.org", "code": "1-8"}]}
    laboratory = Laboratory(store_of(*PATIENTS, *DAY_BEFORE))

    assert laboratory.results(order("w1", "2015-01-06T09:30:00Z", code=unknown), linked=True) == ()


@pytest.fixture
def written(store_of: Stores) -> tuple[Written, list[datetime], str]:
    """Give what was written with one order whose result is to come in at 10:20, and the clock that it goes by."""
    clock = [SIGNED]
    written = Written(now=lambda: clock[0])
    form = written.create({name: value for name, value in NEW.items() if name != "id"}, now=SIGNED)
    store = store_of(*PATIENTS, *DAY_BEFORE)
    written.expect(Laboratory(store).results(NEW, linked=True), order_id=form.address.decode().partition("/")[2])
    return written, clock, "w1"


def test_a_result_shows_from_its_instant_on_and_completes_the_order(
    written: tuple[Written, list[datetime], str],
) -> None:
    held, clock, _ = written
    assert [one["status"] for one in held.resources()] == ["active"]

    clock[0] = datetime(2015, 1, 6, 10, 19, 59, tzinfo=UTC)
    assert held.of_patient("Observation", "p1") == ()

    clock[0] = datetime(2015, 1, 6, 10, 20, tzinfo=UTC)
    assert len(held.of_patient("Observation", "p1")) == 1
    assert [one["status"] for one in held.resources()] == ["completed", "final"]


def test_nothing_comes_of_an_order_that_was_taken_back(written: tuple[Written, list[datetime], str]) -> None:
    held, clock, order_id = written
    held.update({**NEW, "status": "revoked"}, order_id, now=SIGNED)

    clock[0] = datetime(2015, 1, 7, tzinfo=UTC)

    assert [one["status"] for one in held.resources()] == ["revoked"]
