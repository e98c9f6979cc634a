"""What became of a visit and of its patient, at every edge: predicted at 20:55 UTC, a day after admission."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from deployr_core.codes import ICD10CM, Code
from deployr_core.facts import Diagnosis, DiagnosisList
from deployr_core.instants import known_instant, parse_fhir_datetime
from deployr_core.label_rules import (
    DiagnosisInWindow,
    IcuTransfer,
    InHospitalMortality,
    LengthOfStay,
    LongStay,
    Mortality,
    Readmission,
)
from deployr_core.packet import Censored, NotYet, Observed, Subject
from deployr_core.visit_labels import Death, Stay
from deployr_serve.core.outcome_source import OutcomeFacts
from label_extractors.rules import Asked, label_of

TICK, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
A_YEAR = timedelta(days=366)
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture
def stay(now):
    """Give a function that makes the stay e1: admitted a day before the index time, still there."""

    def make(visit_id="e1", *, began=-DAY, ended=None, classes=("IMP",), discharged_to=None, known=None):
        return Stay(
            visit_id=visit_id,
            classes=frozenset(classes),
            began_at=now + began,
            ended_at=None if ended is None else now + ended,
            discharged_to=discharged_to,
            known_at=now + (began if known is None else known),
        )

    return make


@pytest.fixture
def label(now):
    """Give a function that asks for the label of a prediction about the stay e1, so long after it."""

    def ask(rule, *stays, after, encounter_id="e1", classes=(), **facts):
        subject = Subject(patient_id="p1", encounter_id=encounter_id)
        asked = Asked(rule=rule, subject=subject, as_of=now, visit_classes=classes)
        return label_of(asked, OutcomeFacts(stays=stays, **facts), now=now + after)

    return ask


@pytest.fixture
def died(now):
    def make(after, *, lasting=timedelta(0)):
        return Death(earliest=now + after, latest=now + after + lasting)

    return make


def nothing_until(due):
    return Observed(value=0.0, at=due, known_at=due, source_id="")


# -- mortality in some days

IN_30_DAYS = Mortality(days=30)
DUE = 30 * DAY


@pytest.mark.parametrize(("after", "value"), [(timedelta(0), 1.0), (TICK, 1.0), (DUE - TICK, 1.0), (DUE, 0.0)])
def test_a_death_counts_from_the_index_time_on_and_before_the_end(label, died, now, after, value):
    found = label(IN_30_DAYS, death=died(after), after=DUE)
    assert found.value == value
    if value:
        assert (found.at, found.known_at, found.source_id) == (now + after, now + after, "death")


def test_who_was_dead_before_was_not_predicted(label, died):
    assert label(IN_30_DAYS, death=died(-TICK), after=DUE) == Censored(reason="dead-before")


def test_a_death_is_known_at_once_and_survival_at_the_end_and_not_before(label, died, now):
    assert label(IN_30_DAYS, death=died(HOUR), after=HOUR).value == 1.0
    assert label(IN_30_DAYS, death=died(HOUR), after=HOUR - TICK) == NotYet(ripe_at=now + DUE)
    assert label(IN_30_DAYS, after=DUE - TICK) == NotYet(ripe_at=now + DUE)
    assert label(IN_30_DAYS, after=DUE) == nothing_until(now + DUE)


def test_a_mere_day_of_death_counts_if_all_of_it_is_in_the_time(label, died, now):
    whole = died(DUE - DAY, lasting=DAY)
    assert label(IN_30_DAYS, death=whole, after=DUE).value == 1.0
    assert label(IN_30_DAYS, death=died(DUE - DAY + TICK, lasting=DAY), after=DUE) == Censored(reason="coarse-date")
    # The patient was alive when the prediction was made, so the rest of that day it is.
    same_day = label(IN_30_DAYS, death=died(-HOUR, lasting=DAY), after=DAY)
    assert (same_day.value, same_day.at, same_day.known_at) == (1.0, now, now - HOUR + DAY)
    assert label(IN_30_DAYS, death=died(-DAY, lasting=DAY), after=DUE) == Censored(reason="dead-before")


def test_a_death_without_a_date_leaves_survival_open(label, died):
    assert label(IN_30_DAYS, died_undated=True, after=DUE) == Censored(reason="undated-death")
    assert label(IN_30_DAYS, death=died(HOUR), is_merged=True, after=DUE).value == 1.0
    assert label(IN_30_DAYS, is_merged=True, after=DUE) == Censored(reason="record-merged")


def test_thirty_days_are_so_many_hours_whatever_the_clocks_on_the_wall_do():
    # 2015-03-08: clocks in New York go forward. A day of 24 hours ends at 01:30 EDT + 1 h on the wall.
    as_of = datetime(2015, 3, 7, 1, 30, tzinfo=NEW_YORK).astimezone(UTC)
    asked = Asked(rule=Mortality(days=1), subject=Subject(patient_id="p1"), as_of=as_of)

    def value(*wall):
        at = datetime(*wall, tzinfo=NEW_YORK).astimezone(UTC)
        return label_of(asked, OutcomeFacts(death=Death(earliest=at, latest=at)), now=as_of + 9 * DAY).value

    assert value(2015, 3, 8, 1, 29, 59, 999_999) == 1.0
    assert value(2015, 3, 8, 1, 30) == 0.0
    # Over the night itself: 24 hours from 12:00 EST end at 13:00 EDT.
    asked = Asked(
        rule=Mortality(days=1),
        subject=Subject(patient_id="p1"),
        as_of=datetime(2015, 3, 7, 12, tzinfo=NEW_YORK).astimezone(UTC),
    )
    assert value(2015, 3, 8, 12, 59, 59, 999_999) == 1.0
    assert value(2015, 3, 8, 13) == 0.0


def test_a_day_of_death_on_the_night_of_25_hours_is_that_long():
    # 2015-11-01 lasts from 04:00Z to 05:00Z of the next day.
    span = parse_fhir_datetime("2015-11-01", zone=NEW_YORK)
    death = Death(earliest=span[0], latest=known_instant(span))
    for hours, reason in ((24, Censored(reason="coarse-date")), (25, None)):
        as_of = span[0] - 29 * DAY - 24 * HOUR + hours * HOUR
        asked = Asked(rule=Mortality(days=30), subject=Subject(patient_id="p1"), as_of=as_of)
        found = label_of(asked, OutcomeFacts(death=death), now=as_of + DUE)
        assert found == reason if reason else found.value == 1.0


# -- mortality in hospital


def test_a_visit_that_has_not_ended_says_nothing_and_after_a_year_never_will(label, stay, now):
    rule = InHospitalMortality()
    assert label(rule, stay(), after=A_YEAR - TICK) == NotYet(ripe_at=now + A_YEAR)
    assert label(rule, stay(), after=A_YEAR) == Censored(reason="not-ended")
    assert label(rule, stay(ended=2 * DAY), after=2 * DAY - TICK) == NotYet(ripe_at=now + A_YEAR)


@pytest.mark.parametrize(
    ("discharged_to", "death", "value"),
    [("exp", None, 1.0), ("home", None, 0.0), (None, 2 * DAY, 1.0), (None, 2 * DAY + TICK, 0.0), ("20", None, 1.0)],
)
def test_who_dies_before_the_visit_ends_dies_in_hospital(label, stay, died, now, discharged_to, death, value):
    visit = stay(ended=2 * DAY, discharged_to=discharged_to)
    found = label(InHospitalMortality(), visit, death=None if death is None else died(death), after=9 * DAY)
    assert found == Observed(value=value, at=now + 2 * DAY, known_at=now + 2 * DAY, source_id="e1")


def test_a_mere_day_of_death_counts_for_the_visit_that_touches_it(label, stay, died):
    visit = stay(ended=2 * DAY)
    assert label(InHospitalMortality(), visit, death=died(2 * DAY, lasting=DAY), after=9 * DAY).value == 1.0
    assert label(InHospitalMortality(), visit, death=died(2 * DAY + TICK, lasting=DAY), after=9 * DAY).value == 0.0


def test_a_death_without_a_date_is_of_the_visit_only_if_the_visit_says_how_it_ended(label, stay):
    rule = InHospitalMortality()
    assert label(rule, stay(ended=DAY, discharged_to="home"), died_undated=True, after=DAY).value == 0.0
    assert label(rule, stay(ended=DAY, discharged_to="exp"), died_undated=True, after=DAY).value == 1.0
    assert label(rule, stay(ended=DAY), died_undated=True, after=DAY) == Censored(reason="undated-death")


def test_without_the_visit_nobody_can_tell(label, stay, now):
    other = stay("e9", ended=DAY)
    assert label(InHospitalMortality(), other, after=DAY) == NotYet(ripe_at=now + A_YEAR)
    assert label(InHospitalMortality(), other, after=A_YEAR) == Censored(reason="no-visit")


def test_where_the_request_named_no_visit_the_only_one_that_holds_the_index_time_is_meant(label, stay):
    rule = LengthOfStay()
    here, before = stay(ended=DAY), stay("e0", began=-9 * DAY, ended=-8 * DAY)
    assert label(rule, before, here, encounter_id=None, after=2 * DAY).value == 2.0
    assert label(rule, here, stay("e2", ended=DAY), encounter_id=None, after=A_YEAR) == Censored(reason="no-visit")


# -- how long


@pytest.mark.parametrize(
    ("ended", "value", "known"),
    [(6 * DAY - TICK, 0.0, 6 * DAY - TICK), (6 * DAY, 1.0, 6 * DAY), (9 * DAY, 1.0, 6 * DAY)],
)
def test_a_long_stay_is_one_from_its_last_instant_on(label, stay, now, ended, value, known):
    found = label(LongStay(days=7), stay(ended=ended), after=9 * DAY)
    assert (found.value, found.known_at) == (value, now + known)


def test_a_stay_that_lasts_is_long_once_its_days_are_over(label, stay, now):
    assert label(LongStay(days=7), stay(), after=6 * DAY).value == 1.0
    assert label(LongStay(days=7), stay(), after=6 * DAY - TICK) == NotYet(ripe_at=now + 7 * DAY)


def test_the_length_of_a_stay_is_in_days_of_24_hours(label, stay, now):
    assert label(LengthOfStay(), stay(ended=36 * HOUR), after=36 * HOUR).value == 2.5
    assert label(LengthOfStay(), stay(), after=40 * DAY) == NotYet(ripe_at=now + A_YEAR)


# -- coming back

BACK = Readmission(days=30)


@pytest.mark.parametrize(("began", "value"), [(timedelta(0), 0.0), (TICK, 1.0), (DUE - TICK, 1.0), (DUE, 0.0)])
def test_a_readmission_begins_within_the_days_and_neither_end_counts(label, stay, began, value):
    left = stay(ended=timedelta(0))
    assert label(BACK, left, stay("e2", began=began), after=2 * DUE).value == value


def test_a_readmission_is_known_when_it_is_recorded_and_its_absence_at_the_end(label, stay, now):
    left, back = stay(ended=timedelta(0)), stay("e2", began=DAY, known=2 * DAY)
    assert label(BACK, left, back, after=2 * DAY - TICK) == NotYet(ripe_at=now + DUE)
    found = label(BACK, left, back, after=2 * DAY)
    assert found == Observed(value=1.0, at=now + DAY, known_at=now + 2 * DAY, source_id="e2")
    assert label(BACK, left, after=DUE - TICK) == NotYet(ripe_at=now + DUE)
    assert label(BACK, left, after=DUE) == nothing_until(now + DUE)


def test_only_visits_of_the_models_classes_are_readmissions(label, stay):
    clinic = stay("e2", began=DAY, classes=("AMB",))
    assert label(BACK, stay(ended=timedelta(0)), clinic, classes=("IMP", "ACUTE"), after=DUE).value == 0.0
    assert label(BACK, stay(ended=timedelta(0)), clinic, after=DUE).value == 1.0


@pytest.mark.parametrize("to", ["other-hcf", "02", " 66 "])
def test_who_went_on_to_another_hospital_was_not_discharged_back_or_not(label, stay, to):
    left = stay(ended=timedelta(0), discharged_to=to)
    assert label(BACK, left, after=DUE) == Censored(reason="transferred-out")
    assert label(BACK, left, stay("e2", began=DAY), after=DUE) == Censored(reason="transferred-out")


def test_who_dies_outside_does_not_come_back_and_a_merged_record_cannot_tell(label, stay, died):
    left = stay(ended=timedelta(0))
    assert label(BACK, left, death=died(DAY), after=DUE).value == 0.0
    assert label(BACK, left, died_undated=True, after=DUE).value == 0.0
    assert label(BACK, left, is_merged=True, after=DUE) == Censored(reason="record-merged")
    assert label(BACK, left, stay("e2", began=DAY), is_merged=True, after=DUE).value == 1.0


# -- intensive care, and getting worse

TO_ICU = IcuTransfer(hours=24)
WORSE = IcuTransfer(hours=24, or_death=True)


@pytest.mark.parametrize(("began", "value"), [(timedelta(0), 0.0), (TICK, 1.0), (DAY - TICK, 1.0), (DAY, 0.0)])
def test_a_transfer_begins_within_the_hours_and_neither_end_counts(label, stay, began, value):
    icu = stay("icu", began=began, classes=("ICU",))
    assert label(TO_ICU, stay(), icu, after=2 * DAY).value == value


def test_intensive_care_after_the_visit_is_not_of_the_visit(label, stay, now):
    icu = stay("icu", began=2 * HOUR, classes=("ICU",))
    ended = stay(ended=2 * HOUR)
    assert label(TO_ICU, ended, icu, after=2 * HOUR) == nothing_until(now + 2 * HOUR)
    assert label(TO_ICU, stay(ended=2 * HOUR + TICK), icu, after=DAY).value == 1.0


def test_who_leaves_for_another_hospital_within_the_hours_is_not_followed(label, stay, now):
    gone = stay(ended=2 * HOUR, discharged_to="other-hcf")
    assert label(TO_ICU, gone, after=DAY) == Censored(reason="transferred-out")
    icu = stay("icu", began=HOUR, classes=("ICU",))
    assert label(TO_ICU, gone, icu, after=DAY).value == 1.0
    later = stay(ended=DAY, discharged_to="other-hcf")
    assert label(TO_ICU, later, after=DAY) == nothing_until(now + DAY)


def test_death_counts_as_getting_worse_only_where_the_rule_says_so(label, stay, died):
    assert label(TO_ICU, stay(ended=HOUR), death=died(HOUR), after=DAY).value == 0.0
    assert label(WORSE, stay(ended=HOUR), death=died(HOUR), after=DAY).value == 1.0
    assert label(WORSE, stay(ended=HOUR, discharged_to="exp"), after=DAY).value == 1.0
    assert label(WORSE, stay(ended=HOUR), death=died(DAY - TICK), after=2 * DAY).value == 1.0
    assert label(WORSE, stay(ended=HOUR), death=died(DAY), after=2 * DAY).value == 0.0
    assert label(WORSE, stay(), death=died(-TICK), after=DAY) == Censored(reason="dead-before")
    assert label(WORSE, stay(), death=died(HOUR, lasting=DAY), after=DAY) == Censored(reason="coarse-date")
    assert label(WORSE, stay(), died_undated=True, after=DAY) == Censored(reason="undated-death")
    assert label(TO_ICU, stay(), died_undated=True, after=DAY).value == 0.0


# -- a diagnosis

KIDNEY = DiagnosisInWindow(codes={ICD10CM: ("N17.*", "N19")}, days=30)


@pytest.fixture
def diagnosis(now):
    def make(
        fact_id="c1", *, code="N17.9", after=HOUR, lasting=timedelta(0), system=ICD10CM, where="encounter-diagnosis"
    ):
        at = now + after
        return Diagnosis(
            fact_id=fact_id,
            codes=(Code(system, code),),
            at=at,
            known_at=at + lasting,
            recorded_in=DiagnosisList(where),
        )

    return make


@pytest.mark.parametrize(("after", "value"), [(-TICK, 0.0), (timedelta(0), 1.0), (DUE - TICK, 1.0), (DUE, 0.0)])
def test_a_diagnosis_counts_from_the_index_time_on_and_before_the_end(label, diagnosis, after, value):
    assert label(KIDNEY, diagnoses=(diagnosis(after=after),), after=2 * DUE).value == value


def test_a_diagnosis_is_known_when_it_is_recorded_and_its_absence_at_the_end(label, diagnosis, now):
    found = label(KIDNEY, diagnoses=(diagnosis("c2", after=2 * HOUR), diagnosis()), after=DAY)
    assert found == Observed(value=1.0, at=now + HOUR, known_at=now + HOUR, source_id="c1")
    assert label(KIDNEY, diagnoses=(diagnosis(),), after=HOUR - TICK) == NotYet(ripe_at=now + DUE)
    assert label(KIDNEY, after=DUE - TICK) == NotYet(ripe_at=now + DUE)
    assert label(KIDNEY, after=DUE) == nothing_until(now + DUE)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"code": "N17.0"}, 1.0),
        ({"code": "N17"}, 0.0),
        ({"code": "N19"}, 1.0),
        ({"code": "N19.0"}, 0.0),
        ({"system": "urn:other"}, 0.0),
        ({"where": "problem-list-item"}, 1.0),
    ],
)
def test_codes_count_as_they_stand_or_by_their_beginning(label, diagnosis, changes, value):
    assert label(KIDNEY, diagnoses=(diagnosis(**changes),), after=DUE).value == value


def test_only_the_lists_of_the_rule_count(label, diagnosis):
    rule = DiagnosisInWindow(codes=KIDNEY.codes, days=30, recorded_in=(DiagnosisList.ENCOUNTER,))
    assert label(rule, diagnoses=(diagnosis(where="problem-list-item"),), after=DUE).value == 0.0


def test_a_mere_day_that_either_end_cuts_tells_nothing(label, diagnosis, now):
    begins = diagnosis(after=-HOUR, lasting=DAY)
    ends = diagnosis(after=DUE - DAY + TICK, lasting=DAY)
    assert label(KIDNEY, diagnoses=(begins,), after=DUE) == Censored(reason="coarse-date")
    assert label(KIDNEY, diagnoses=(begins,), after=DAY) == NotYet(ripe_at=now + DUE)
    assert label(KIDNEY, diagnoses=(ends,), after=2 * DUE) == Censored(reason="coarse-date")
    assert label(KIDNEY, diagnoses=(diagnosis(after=DUE - DAY, lasting=DAY),), after=DUE).value == 1.0
    assert label(KIDNEY, diagnoses=(diagnosis(after=-DAY, lasting=DAY),), after=DUE).value == 0.0
    assert label(KIDNEY, diagnoses=(begins, diagnosis("c2", after=DAY)), after=DUE).value == 1.0


def test_who_dies_before_the_diagnosis_could_come_has_no_label(label, diagnosis, died):
    assert label(KIDNEY, death=died(DUE - TICK), after=DUE) == Censored(reason="died")
    assert label(KIDNEY, death=died(DUE), after=DUE).value == 0.0
    assert label(KIDNEY, diagnoses=(diagnosis(),), death=died(DAY), after=DUE).value == 1.0
    assert label(KIDNEY, died_undated=True, after=DUE) == Censored(reason="undated-death")
    assert label(KIDNEY, is_merged=True, after=DUE) == Censored(reason="record-merged")
