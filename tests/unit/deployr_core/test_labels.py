from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Lab
from deployr_core.labels import LabComponentRule, is_abnormal

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

AS_OF = datetime.fromisoformat("2015-01-06T23:55:00+05:45").astimezone(UTC)
BARELY = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
RULE = LabComponentRule(components=("4544-3", "20570-8"), window=24 * HOUR)
END = AS_OF + 24 * HOUR
OURS = "order-1"


def decided(*labs: Lab, order_id: str | None = OURS) -> Lab | None:
    """Give the deciding result, having seen that the order of the results does not matter."""
    found = {id(RULE.deciding_result(order, as_of=AS_OF, order_id=order_id)) for order in permutations(labs)}
    assert len(found) == 1
    return RULE.deciding_result(labs, as_of=AS_OF, order_id=order_id)


def test_a_label_is_ripe_at_the_end_of_the_window() -> None:
    assert RULE.ripe_at(AS_OF) == END


def test_without_results_nothing_decides() -> None:
    assert decided() is None


def test_a_result_released_before_the_end_of_the_window_counts_and_at_its_end_not(make: Make) -> None:
    in_time = make.lab(at=AS_OF + HOUR, known_at=END - BARELY)
    assert decided(in_time) is in_time
    assert decided(make.lab(at=AS_OF + HOUR, known_at=END)) is None
    assert decided(make.lab(at=AS_OF + HOUR, known_at=END, order_id=OURS)) is None


def test_the_specimen_of_an_unlinked_result_is_taken_from_as_of_on(make: Make) -> None:
    at_once = make.lab(at=AS_OF, known_at=AS_OF + HOUR)
    assert decided(at_once) is at_once
    assert decided(make.lab(at=AS_OF - BARELY, known_at=AS_OF + HOUR)) is None


@pytest.mark.parametrize("before", [BARELY, HOUR, 1000 * HOUR])
def test_a_linked_result_counts_whenever_its_specimen_was_taken(make: Make, before: timedelta) -> None:
    linked = make.lab(at=AS_OF - before, known_at=AS_OF + HOUR, order_id=OURS)
    assert decided(linked) is linked


def test_a_linked_result_comes_before_unlinked_ones(make: Make) -> None:
    linked = make.lab(at=AS_OF + 3 * HOUR, order_id=OURS, codes=(Code(LOINC, "20570-8"),))
    assert decided(make.lab(at=AS_OF + HOUR), linked) is linked


def test_a_result_of_another_order_never_counts(make: Make) -> None:
    others = make.lab(at=AS_OF + HOUR, order_id="order-2")
    assert decided(others) is None
    assert decided(others, order_id=None) is None


def test_without_an_order_only_unlinked_results_count(make: Make) -> None:
    unlinked = make.lab(at=AS_OF + 2 * HOUR)
    assert decided(make.lab(at=AS_OF + HOUR, order_id=OURS), unlinked, order_id=None) is unlinked


def test_another_test_is_passed_over(make: Make) -> None:
    assert decided(make.lab(at=AS_OF + HOUR, codes=(Code(LOINC, "718-7"),))) is None
    assert decided(make.lab(at=AS_OF + HOUR, codes=())) is None


def test_the_preferred_component_comes_before_the_earlier_specimen(make: Make) -> None:
    preferred = make.lab(at=AS_OF + 5 * HOUR)
    other = make.lab(at=AS_OF + HOUR, codes=(Code(LOINC, "20570-8"),))
    assert decided(other, preferred) is preferred
    assert decided(other) is other


def test_a_result_that_can_be_told_comes_before_the_preferred_component_that_cannot(make: Make) -> None:
    untold = make.lab(at=AS_OF + HOUR)
    told = make.lab(at=AS_OF + 5 * HOUR, codes=(Code(LOINC, "20570-8"),), abnormal=True)
    assert decided(untold, told) is told
    assert decided(untold) is untold


def test_a_linked_result_that_cannot_be_told_comes_before_an_unlinked_one_that_can(make: Make) -> None:
    linked = make.lab(at=AS_OF + HOUR, order_id=OURS)
    assert decided(linked, make.lab(at=AS_OF + HOUR, abnormal=True)) is linked


def test_a_result_with_several_codes_has_the_rank_of_its_best(make: Make) -> None:
    both = make.lab(at=AS_OF + HOUR, codes=(Code(LOINC, "20570-8"), Code(LOINC, "4544-3")))
    assert decided(make.lab(at=AS_OF + 2 * HOUR), both) is both


def test_the_earliest_specimen_comes_before_the_earlier_release(make: Make) -> None:
    first = make.lab(at=AS_OF + HOUR, known_at=AS_OF + 9 * HOUR)
    assert decided(make.lab(at=AS_OF + 2 * HOUR, known_at=AS_OF + 3 * HOUR), first) is first


def test_a_corrected_result_replaces_the_one_it_corrects(make: Make) -> None:
    corrected = make.lab(38.0, at=AS_OF + HOUR, known_at=AS_OF + 5 * HOUR)
    assert decided(make.lab(30.0, at=AS_OF + HOUR, known_at=AS_OF + 2 * HOUR), corrected) is corrected


def test_results_released_together_are_decided_by_their_id(make: Make) -> None:
    one, other = (make.lab(at=AS_OF + HOUR, fact_id=fact_id) for fact_id in ("a", "b"))
    assert decided(one, other) is other


def test_the_same_code_of_another_system_is_another_test(make: Make) -> None:
    assert decided(make.lab(at=AS_OF + HOUR, codes=(Code("urn:local", "4544-3"),))) is None


@pytest.mark.parametrize(
    ("value", "abnormal"),
    [
        (math.nextafter(35, 0), True),
        (35.0, False),
        (47.0, False),
        (math.nextafter(47, 99), True),
    ],
)
def test_the_bounds_belong_to_the_reference_range(make: Make, value: float, abnormal: bool) -> None:
    assert is_abnormal(make.lab(value, reference_low=35.0, reference_high=47.0)) is abnormal


def test_a_missing_bound_is_no_limit(make: Make) -> None:
    assert is_abnormal(make.lab(-1e9, reference_high=47.0)) is False
    assert is_abnormal(make.lab(48.0, reference_high=47.0)) is True
    assert is_abnormal(make.lab(1e9, reference_low=35.0)) is False
    assert is_abnormal(make.lab(34.0, reference_low=35.0)) is True


@pytest.mark.parametrize("flag", [True, False])
def test_the_range_comes_before_the_laboratorys_flag(make: Make, flag: bool) -> None:
    assert is_abnormal(make.lab(40.0, reference_low=35.0, reference_high=47.0, abnormal=flag)) is False
    assert is_abnormal(make.lab(30.0, reference_low=35.0, reference_high=47.0, abnormal=flag)) is True


@pytest.mark.parametrize("flag", [True, False, None])
def test_without_a_range_or_a_number_the_flag_counts(make: Make, flag: bool | None) -> None:
    assert is_abnormal(make.lab(40.0, abnormal=flag)) is flag
    assert is_abnormal(make.lab(None, reference_low=35.0, abnormal=flag)) is flag


def test_a_result_that_is_not_a_number_is_not_normal(make: Make) -> None:
    assert is_abnormal(make.lab(math.nan, reference_low=35.0, reference_high=47.0)) is None
