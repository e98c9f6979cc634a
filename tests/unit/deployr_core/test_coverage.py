"""What a model must be told before it may score, at the edges of each requirement."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployr_core.codes import Code
from deployr_core.coverage import Requirements, Shortfall, features_present, shortfall
from deployr_core.facts import BirthDate
from deployr_core.vectorize import vectorize

HOUR = timedelta(hours=1)


@pytest.fixture
def ask(make):
    """Give a function that says what a patient falls short of, for a model of age, labs and problem list."""

    def run(requirements, facts=None, *, visit_classes=(), oldest_answer_s=0.0):
        spec = make.spec(make.age_group(0, 18, 65), make.lab_group("bins", "last", "missing"), make.diagnosis_group())
        facts = facts or make.patient()
        return shortfall(
            requirements,
            facts=facts,
            vector=vectorize(facts, spec, make.as_of),
            spec=spec,
            as_of=make.as_of,
            visit_classes=visit_classes,
            oldest_answer_s=oldest_answer_s,
        )

    return run


def test_nothing_is_required_by_default_not_even_a_fact(ask):
    assert ask(Requirements()) is None


@pytest.mark.parametrize(
    ("age", "expected"), [(17, Shortfall.OUT_OF_COHORT), (18, None), (89, None), (90, "out-of-cohort")]
)
def test_an_age_range_includes_its_start_and_excludes_its_end(ask, make, age, expected):
    adults = Requirements(age_at_least=18, age_below=90)
    born = BirthDate(year=make.as_of.year - age, month=1, day=1)
    assert ask(adults, make.patient(birth_date=born)) == expected


@pytest.mark.parametrize("limits", [{"age_at_least": 0}, {"age_below": 200}])
def test_an_age_that_nobody_knows_is_outside_any_age_range(ask, limits):
    assert ask(Requirements(**limits)) is Shortfall.OUT_OF_COHORT


def test_a_birth_in_the_future_is_outside_even_where_only_an_upper_end_is_set(ask, make):
    unborn = make.patient(birth_date=BirthDate(year=make.as_of.year + 1))
    assert ask(Requirements(age_below=18), unborn) is Shortfall.OUT_OF_COHORT


@pytest.mark.parametrize(
    ("classes", "expected"), [((), "out-of-cohort"), (("AMB",), "out-of-cohort"), (("AMB", "IMP"), None)]
)
def test_a_visit_must_be_of_a_required_class(ask, classes, expected):
    inpatients = Requirements(visit_classes=("IMP", "ACUTE"))
    assert ask(inpatients, visit_classes=tuple(Code("urn:class", each) for each in classes)) == expected


@pytest.mark.parametrize(("hours", "expected"), [(6, None), (7, Shortfall.STALE)])
def test_the_newest_fact_may_be_as_old_as_the_limit_says(ask, make, hours, expected):
    newest, older = make.as_of - hours * HOUR, make.as_of - 48 * HOUR
    facts = make.patient(labs=(make.lab(at=older), make.lab(at=older, known_at=newest)))
    assert ask(Requirements(newest_fact_hours=6), facts) == expected


def test_a_fact_that_is_known_only_at_the_instant_itself_does_not_make_a_record_fresh(ask, make):
    facts = make.patient(labs=(make.lab(known_at=make.as_of),))
    assert ask(Requirements(newest_fact_hours=6), facts) is Shortfall.STALE


def test_a_record_without_any_fact_is_not_fresh(ask):
    assert ask(Requirements(newest_fact_hours=10_000)) is Shortfall.STALE


@pytest.mark.parametrize(("seconds", "expected"), [(300.0, None), (300.5, Shortfall.STALE)])
def test_the_emrs_answer_may_be_five_minutes_old(ask, seconds, expected):
    assert ask(Requirements(), oldest_answer_s=seconds) == expected


def test_features_are_counted_without_demographics_and_without_what_says_that_something_is_missing(ask, make):
    known_age = make.patient(birth_date=BirthDate(year=1950))
    assert ask(Requirements(features_present=1), known_age) is Shortfall.SPARSE
    # One result sets two features: its bin, and `last`.
    one_result = make.patient(labs=(make.lab(36.6),))
    assert ask(Requirements(features_present=2), one_result) is None
    assert ask(Requirements(features_present=3), one_result) is Shortfall.SPARSE


def test_a_required_group_needs_a_feature_of_its_own(ask, make):
    one_result = make.patient(labs=(make.lab(36.6),))
    assert ask(Requirements(groups=("labs",)), one_result) is None
    assert ask(Requirements(groups=("labs", "problem_list")), one_result) is Shortfall.SPARSE


def test_who_the_patient_is_comes_before_how_old_and_how_much_is_known(ask, make):
    everything = Requirements(age_at_least=18, newest_fact_hours=1, features_present=1)
    assert ask(everything) is Shortfall.OUT_OF_COHORT
    adult = make.patient(birth_date=BirthDate(year=1950))
    assert ask(everything, adult) is Shortfall.STALE


def test_present_features_are_given_by_group(make):
    spec = make.spec(make.age_group(0, 18), make.lab_group("bins", "missing"), make.diagnosis_group())
    facts = make.patient(diagnoses=(make.diagnosis("I48.0"),), birth_date=BirthDate(year=1950))
    assert features_present(vectorize(facts, spec, make.as_of), spec) == {"labs": 0, "problem_list": 1}


@pytest.mark.parametrize(
    "wrong", [{"features_present": -1}, {"newest_fact_hours": -1}, {"age_at_least": 18, "age_below": 18}]
)
def test_impossible_requirements_are_refused(wrong):
    with pytest.raises(ValueError, match="expected "):
        Requirements(**wrong)


def test_a_required_group_that_the_declaration_lacks_is_refused(make):
    spec = make.spec(make.age_group(0, 18), make.lab_group("last"))
    Requirements(groups=("labs",)).expect_known_groups(spec)
    with pytest.raises(ValueError, match="got age, vitals"):
        Requirements(groups=("vitals", "age")).expect_known_groups(spec)
