"""Later patients who are not those of before are named; the same ones, or too few, are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deployr_core.codes import LOINC, Code
from deployr_core.declared import Analyte, Statistic
from deployr_core.facts import Demographics, Lab, PatientFacts, Sex
from deployr_core.features import FeatureSpec, LabGroup, SexGroup
from deployr_dev.parity_kinds import CauseKind
from deployr_dev.parity_periods import FEWEST_PATIENTS, HOW_MANY, case_mix

SODIUM = Code(LOINC, "2951-2")
UNTIL = datetime(2025, 2, 1, tzinfo=UTC)
SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        LabGroup(
            name="labs",
            analytes=(Analyte(system=LOINC, code=SODIUM.value, name="sodium", unit="mmol/L"),),
            statistics=(Statistic.LAST,),
            lookback_days=14,
        ),
    ),
)


def order(number: int, at: datetime, *, value: float, results: int = 1) -> tuple[PatientFacts, datetime]:
    """Give an order, and its patient with results of the hours before it: the value, or one or two more."""
    labs = tuple(
        Lab(
            fact_id=f"l{hours}",
            codes=(SODIUM,),
            at=at - timedelta(hours=hours),
            known_at=at - timedelta(hours=hours),
            value=value + number % 3,
            unit="mmol/L",
        )
        for hours in range(1, results + 1)
    )
    who = Demographics(birth_date=None, sex=Sex.UNKNOWN)
    return PatientFacts(patient_id=f"p{number}", demographics=who, labs=labs), at


def period(first: int, at: datetime, *, patients: int = 30, value: float = 138.0, results: int = 1):
    return [order(number, at, value=value, results=results) for number in range(first, first + patients)]


BEFORE, AFTER = UNTIL - timedelta(days=5), UNTIL + timedelta(days=5)


def test_patients_with_other_results_are_named_with_the_test_and_by_how_much():
    (cause,) = case_mix(period(0, BEFORE) + period(30, AFTER, value=136.0), SPEC, reference_until=UNTIL)

    assert (cause.kind, cause.group, cause.side) == (CauseKind.CASE_MIX, "labs", None)
    assert (cause.facts, cause.of, cause.example) == (30, 60, "2951-2")
    # Ten each of 138, 139 and 140: a variance of 20 / 29, so 2 less is 2 / 0.8305 = 2.41 standard deviations.
    assert "2951-2 -2.41" in cause.explanation


def test_patients_of_whom_less_is_known_are_named():
    orders = [
        *(order(number, BEFORE, value=138.0, results=8 + number % 3) for number in range(30)),
        *(order(number, AFTER, value=138.0, results=3 + number % 3) for number in range(30, 60)),
    ]

    (cause,) = case_mix(orders, SPEC, reference_until=UNTIL)

    assert cause.example == HOW_MANY


def test_the_same_patients_as_before_are_no_cause():
    assert case_mix(period(0, BEFORE) + period(30, AFTER), SPEC, reference_until=UNTIL) == ()


def test_of_too_few_patients_nothing_is_said():
    few = period(30, AFTER, patients=FEWEST_PATIENTS - 1, value=120.0)

    assert case_mix(period(0, BEFORE) + few, SPEC, reference_until=UNTIL) == ()


def test_of_a_patient_the_last_order_of_a_period_counts():
    earlier = period(0, BEFORE - timedelta(days=2), value=100.0)

    assert case_mix(earlier + period(0, BEFORE) + period(30, AFTER), SPEC, reference_until=UNTIL) == ()


def test_a_declaration_without_laboratory_results_has_nothing_to_compare():
    bare = FeatureSpec(schema_version=1, groups=(SexGroup(categories=(Sex.FEMALE, Sex.MALE)),))

    assert case_mix(period(0, BEFORE), bare, reference_until=UNTIL) == ()
