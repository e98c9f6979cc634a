"""The label of one packet, at every edge of its window: it begins at 20:55 and is 24 h long."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Order, OrderStatus
from deployr_core.label_rules import Answer, LabComponent, LabPanel, LabRule
from deployr_core.packet import Censored, NotYet, Observed, Subject
from deployr_core.visit_labels import Death
from deployr_serve.core.outcome_source import OutcomeFacts
from label_extractors.rules import Asked, label_of

WINDOW = timedelta(hours=24)
TICK = timedelta(microseconds=1)
OPEN = OrderStatus.OPEN
RULE = LabComponent(components=("4544-3", "20570-8"), window_hours=24)


@pytest.fixture
def result(lab_of, now):
    """Give a function that makes a result of 30 % (range 35 to 47), drawn and released after the index time."""

    def make(fact_id="lab1", *, drawn=timedelta(hours=1), released=timedelta(hours=2), **changes):
        fields = {"value": 30.0, "reference_low": 35.0, "reference_high": 47.0, **changes}
        return lab_of(fact_id, at=now + drawn, known_at=now + released, **fields)

    return make


@pytest.fixture
def label(now):
    """Give a function that asks for the label of order o1, a week after the index time unless told otherwise."""

    def ask(*labs, order=None, order_id="o1", after=timedelta(days=7), rule: LabRule = RULE, **facts):
        orders = {"o1": order or Order(fact_id="o1", codes=(), at=now, known_at=now, encounter_id="e1", status=OPEN)}
        asked = Asked(rule=rule, subject=Subject(patient_id="p1", order_id=order_id), as_of=now)
        return label_of(asked, OutcomeFacts(labs=labs, **{"orders": orders, **facts}), now=now + after)

    return ask


@pytest.fixture
def order_of(now):
    def make(status):
        return Order(fact_id="o1", codes=(), at=now, known_at=now, encounter_id="e1", status=status)

    return make


# -- normal or not


@pytest.mark.parametrize(
    ("value", "abnormal"),
    [(34.999, 1.0), (35.0, 0.0), (41.0, 0.0), (47.0, 0.0), (47.001, 1.0), (0.0, 1.0)],
)
def test_a_value_equal_to_a_bound_of_its_range_is_normal(label, result, value, abnormal):
    assert label(result(value=value)).value == abnormal


@pytest.mark.parametrize(
    ("low", "high", "value", "abnormal"),
    [(35.0, None, 99.0, 0.0), (35.0, None, 34.0, 1.0), (None, 47.0, 1.0, 0.0), (None, 47.0, 48.0, 1.0)],
)
def test_a_missing_bound_is_no_limit(label, result, low, high, value, abnormal):
    assert label(result(reference_low=low, reference_high=high, value=value)).value == abnormal


@pytest.mark.parametrize(("flag", "value"), [(True, 1.0), (False, 0.0)])
def test_without_a_range_the_laboratorys_flag_decides(label, result, flag, value):
    assert label(result(reference_low=None, reference_high=None, abnormal=flag)).value == value
    assert label(result(value=None, abnormal=flag)).value == value


def test_the_range_counts_before_the_flag(label, result):
    assert label(result(value=41.0, abnormal=True)).value == 0.0
    assert label(result(value=30.0, abnormal=False)).value == 1.0


def test_a_result_that_cannot_be_told_normal_or_abnormal_censors(label, result):
    assert label(result(reference_low=None, reference_high=None)) == Censored(reason="no-reference-range")
    assert label(result(value=None)) == Censored(reason="no-reference-range")


def test_an_observed_label_says_where_and_when_it_was_read(label, result, now):
    assert label(result()) == Observed(
        value=1.0, at=now + timedelta(hours=1), known_at=now + timedelta(hours=2), source_id="lab1"
    )


# -- the window


@pytest.mark.parametrize("drawn", [timedelta(0), TICK, timedelta(hours=23)], ids=str)
def test_an_unlinked_result_drawn_in_the_window_counts_from_its_very_start(label, result, drawn):
    assert isinstance(label(result(drawn=drawn, released=timedelta(hours=23, minutes=30))), Observed)


@pytest.mark.parametrize("drawn", [-TICK, -timedelta(hours=1)], ids=str)
def test_an_unlinked_result_drawn_before_the_order_is_another_orders(label, result, drawn):
    assert label(result(drawn=drawn)) == Censored(reason="no-result")


def test_a_result_released_in_the_last_instant_of_the_window_counts_and_at_its_end_no_more(label, result):
    assert isinstance(label(result(released=WINDOW - TICK)), Observed)
    assert label(result(released=WINDOW)) == Censored(reason="no-result")


def test_a_linked_result_released_at_the_end_of_the_window_is_too_late_as_well(label, result):
    assert isinstance(label(result(order_id="o1", released=WINDOW - TICK)), Observed)
    assert label(result(order_id="o1", released=WINDOW)) == Censored(reason="no-result")


def test_a_linked_result_counts_whenever_its_specimen_was_taken(label, result):
    assert isinstance(label(result(order_id="o1", drawn=-timedelta(hours=1))), Observed)


# -- when it is asked


def test_what_is_released_later_than_now_is_not_looked_at(label, result):
    fact = result(released=timedelta(hours=2))
    assert isinstance(label(fact, after=timedelta(hours=2) - TICK), NotYet)
    assert isinstance(label(fact, after=timedelta(hours=2)), Observed)


def test_without_a_result_it_is_too_early_to_say_until_the_window_has_ended(label, now):
    assert label(after=timedelta(0)) == NotYet(ripe_at=now + WINDOW)
    assert label(after=WINDOW - TICK) == NotYet(ripe_at=now + WINDOW)
    assert label(after=WINDOW) == Censored(reason="no-result")


# -- which result


def test_a_linked_result_counts_before_a_nearer_one_that_is_not_linked(label, result):
    linked = result("linked", order_id="o1", drawn=timedelta(hours=5), released=timedelta(hours=6), value=41.0)
    near = result("near", drawn=timedelta(minutes=1))
    assert label(near, linked).source_id == "linked"


def test_a_result_linked_to_another_order_never_counts(label, result):
    assert label(result(order_id="o2")) == Censored(reason="no-result")
    assert label(result(order_id="o2"), order_id=None) == Censored(reason="no-result")


def test_without_a_known_order_the_unlinked_result_counts(label, result):
    assert label(result(), order_id=None).source_id == "lab1"


def test_of_several_unlinked_results_the_nearest_after_the_order_counts(label, result):
    nearer = result("nearer", drawn=timedelta(hours=1), released=timedelta(hours=9), value=41.0)
    sooner_known = result("sooner", drawn=timedelta(hours=2), released=timedelta(hours=3))
    assert label(sooner_known, nearer).source_id == "nearer"
    assert label(nearer, sooner_known).source_id == "nearer"


def test_a_corrected_result_of_the_same_specimen_replaces_the_one_it_corrects(label, result):
    first = result("first", order_id="o1", released=timedelta(hours=2), value=30.0)
    corrected = result("corrected", order_id="o1", released=timedelta(hours=3), value=41.0)
    for labs in ((first, corrected), (corrected, first)):
        assert (label(*labs).source_id, label(*labs).value) == ("corrected", 0.0)


def test_before_the_correction_was_released_the_first_result_counts(label, result):
    first = result("first", released=timedelta(hours=2))
    corrected = result("corrected", released=timedelta(hours=3), value=41.0)
    assert label(first, corrected, after=timedelta(hours=3) - TICK).source_id == "first"


def test_two_results_alike_in_all_but_their_ids_give_the_same_label_in_any_order(label, result):
    one, other = result("a"), result("b", value=41.0)
    assert label(one, other) == label(other, one)


def test_the_preferred_component_counts_before_the_other(label, result):
    other = result("other", codes=(Code(LOINC, "20570-8"),), drawn=timedelta(minutes=1), value=41.0)
    assert label(other, result("preferred")).source_id == "preferred"
    assert label(other).source_id == "other"


@pytest.mark.parametrize("code", [Code(LOINC, "718-7"), Code("urn:local", "4544-3"), Code("urn:local", "HCT")])
def test_a_result_of_another_component_or_of_another_coding_system_is_passed_over(label, result, code):
    assert label(result(codes=(code,))) == Censored(reason="no-result")


def test_one_of_several_codes_is_enough(label, result):
    codes = (Code("urn:local", "HCT"), Code(LOINC, "4544-3"))
    assert isinstance(label(result(codes=codes)), Observed)


# -- the order


def test_a_cancelled_order_without_a_result_censors_at_once(label, order_of):
    cancelled = order_of(OrderStatus.CANCELLED)
    assert label(order=cancelled, after=timedelta(0)) == Censored(reason="order-cancelled")
    assert label(order=cancelled) == Censored(reason="order-cancelled")


def test_a_result_counts_even_though_its_order_was_cancelled_afterwards(label, result, order_of):
    assert isinstance(label(result(order_id="o1"), order=order_of(OrderStatus.CANCELLED)), Observed)


@pytest.mark.parametrize("status", [OrderStatus.OPEN, OrderStatus.DONE])
def test_an_order_that_was_not_cancelled_is_waited_for(label, order_of, now, status):
    assert label(order=order_of(status), after=WINDOW - TICK) == NotYet(ripe_at=now + WINDOW)
    assert label(order=order_of(status), after=WINDOW) == Censored(reason="no-result")


def test_an_order_that_the_emr_no_longer_shows_is_waited_for(label, now):
    assert label(order=None, after=timedelta(hours=1)) == NotYet(ripe_at=now + WINDOW)


# -- other answers

LEVEL = LabComponent(components=("4544-3",), window_hours=24, answer=Answer.LEVEL)
VALUE = LabComponent(components=("718-7",), window_hours=24, answer=Answer.VALUE, unit="g/dL")
PANEL = LabPanel(components={"hemoglobin": ("718-7",), "hematocrit": ("4544-3",)}, window_hours=24)
HEMOGLOBIN = (Code(LOINC, "718-7"),)


@pytest.mark.parametrize(
    ("value", "level"), [(34.999, "low"), (35.0, "normal"), (47.0, "normal"), (47.001, "high"), (0.0, "low")]
)
def test_a_level_is_the_side_of_the_range_and_its_ends_are_normal(label, result, value, level):
    assert label(result(value=value), rule=LEVEL).value == level


def test_a_flag_without_a_range_can_say_normal_but_not_on_which_side_it_is_abnormal(label, result):
    bare = {"reference_low": None, "reference_high": None}
    assert label(result(**bare, abnormal=False), rule=LEVEL).value == "normal"
    assert label(result(**bare, abnormal=True), rule=LEVEL) == Censored(reason="no-reference-range")


@pytest.mark.parametrize(("value", "unit", "number"), [(9.5, "g/dL", 9.5), (95.0, "g/L", 9.5), (9.5, "gm/dL", 9.5)])
def test_a_number_is_given_in_the_declared_unit(label, result, value, unit, number):
    assert label(result(codes=HEMOGLOBIN, value=value, unit=unit), rule=VALUE).value == number


@pytest.mark.parametrize("changes", [{"unit": "furlong"}, {"unit": ""}, {"value": None, "unit": "g/dL"}])
def test_a_number_that_cannot_be_had_in_that_unit_censors(label, result, changes):
    assert label(result(codes=HEMOGLOBIN, **changes), rule=VALUE) == Censored(reason="no-usable-number")


def test_a_number_needs_no_reference_range(label, result):
    bare = result(codes=HEMOGLOBIN, unit="g/dL", reference_low=None, reference_high=None)
    assert label(bare, rule=VALUE).value == 30.0


def test_a_result_with_a_usable_number_counts_before_one_without(label, result):
    unusable = result("first", codes=HEMOGLOBIN, unit="furlong", drawn=timedelta(minutes=5))
    usable = result("second", codes=HEMOGLOBIN, unit="g/dL")
    assert label(unusable, usable, rule=VALUE).source_id == "second"


def test_a_panel_has_a_label_only_when_every_component_has(label, result, now):
    first = result("hct")
    assert label(first, rule=PANEL) == Censored(reason="no-result")
    assert label(first, rule=PANEL, after=timedelta(hours=3)) == NotYet(ripe_at=now + WINDOW)
    second = result("hgb", codes=HEMOGLOBIN, value=40.0, released=timedelta(hours=4))
    assert label(first, second, rule=PANEL) == Observed(
        value={"hematocrit": 1.0, "hemoglobin": 0.0},
        at=now + timedelta(hours=1),
        known_at=now + timedelta(hours=4),
        source_id="hct hgb",
    )


def test_a_panel_whose_missing_result_may_still_come_is_waited_for_whatever_the_others_lack(label, result, now):
    bare = result("hct", reference_low=None, reference_high=None)
    assert label(bare, rule=PANEL, after=timedelta(hours=3)) == NotYet(ripe_at=now + WINDOW)
    second = result("hgb", codes=HEMOGLOBIN, value=40.0)
    assert label(bare, second, rule=PANEL) == Censored(reason="no-reference-range")


def test_the_panel_of_a_cancelled_order_without_all_results_is_censored(label, result, order_of):
    cancelled = order_of(OrderStatus.CANCELLED)
    assert label(result("hct"), rule=PANEL, order=cancelled) == Censored(reason="order-cancelled")


# -- why none will come


def test_who_died_within_the_window_gets_no_result_because_of_that(label, now):
    def died(after):
        return Death(earliest=now + after, latest=now + after)

    assert label(death=died(WINDOW - TICK)) == Censored(reason="died")
    assert label(death=died(WINDOW)) == Censored(reason="no-result")
    assert label(died_undated=True) == Censored(reason="died")
    assert label(death=died(TICK), after=WINDOW - TICK) == NotYet(ripe_at=now + WINDOW)


def test_a_result_counts_whatever_became_of_the_patient_or_the_record(label, result, now):
    gone = {"death": Death(earliest=now, latest=now), "is_merged": True, "orders": {}}
    assert label(result(), **gone).value == 1.0


def test_an_order_that_is_not_shown_any_more_and_a_merged_record_say_so(label):
    assert label(orders={}) == Censored(reason="order-not-visible")
    assert label(orders={}, order_id=None) == Censored(reason="no-result")
    assert label(is_merged=True, died_undated=True, orders={}) == Censored(reason="record-merged")
