"""Each cause of a difference that is planted is found by its name, and nothing is found where nothing was planted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from deployr_core.codes import ICD10CM, LOINC, RXNORM, Code
from deployr_core.declared import Analyte, EdgeBins, FixedCodes, Statistic
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    PatientFacts,
    Sex,
    Vital,
)
from deployr_core.features import (
    AgeGroup,
    DiagnosisGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    RaceGroup,
    VitalGroup,
)
from deployr_dev.parity import PairedOrder, parity_report
from deployr_dev.parity_causes import find_causes
from deployr_dev.parity_facts import Chart, Side
from deployr_dev.parity_kinds import Cause, CauseKind
from deployr_dev.parity_tallies import Lateness, OneSided

# Nepal's offset: no whole or half hour, so that a mistaken zone cannot cancel out.
AS_OF = datetime(2015, 3, 7, 2, 40, tzinfo=timezone(timedelta(hours=5, minutes=45))).astimezone(UTC)
SODIUM, GLUCOSE = Code(LOINC, "2951-2"), Code(LOINC, "2345-7")
ANEMIA = Code(ICD10CM, "D50.9")
IRON = Code(RXNORM, "310325")
PULSE = Code(LOINC, "8867-4")

SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        AgeGroup(bins=EdgeBins(edges=(18,))),
        RaceGroup(categories=("2106-3",)),
        LabGroup(
            name="labs",
            analytes=(
                Analyte(system=LOINC, code=SODIUM.value, name="sodium", unit="mmol/L"),
                Analyte(system=LOINC, code=GLUCOSE.value, name="glucose", unit="mg/dL"),
            ),
            statistics=(Statistic.LAST, Statistic.COUNT),
            lookback_days=30,
        ),
        VitalGroup(
            name="vitals",
            analytes=(Analyte(system=LOINC, code=PULSE.value, name="pulse", unit="/min"),),
            statistics=(Statistic.MEAN,),
            lookback_days=30,
        ),
        DiagnosisGroup(
            name="problems",
            recorded_in=(DiagnosisList.PROBLEM_LIST,),
            systems=(ICD10CM,),
            codes=FixedCodes(codes=(ANEMIA,)),
            lookback_days=300,
        ),
        MedicationGroup(name="drugs", systems=(RXNORM,), codes=FixedCodes(codes=(IRON,)), lookback_days=300),
    ),
)


def facts_of(patient: int) -> PatientFacts:
    """Give a patient with five results of each test, five pulses, a diagnosis and two drugs, all at odd times."""

    def at(number: int) -> datetime:
        return AS_OF - timedelta(days=3 * number + 1, hours=patient, minutes=7 * number + patient)

    def dated(name: str, number: int, code: Code, delay: int = 0) -> dict[str, Any]:
        taken = at(number)
        return {
            "fact_id": f"{name}{number}",
            "codes": (code,),
            "at": taken,
            "known_at": taken + timedelta(minutes=delay),
        }

    return PatientFacts(
        patient_id=f"p{patient}",
        demographics=Demographics(
            birth_date=BirthDate(year=1950 + patient),
            sex=Sex.FEMALE,
            races=(Code("urn:oid:2.16.840.1.113883.6.238", "2106-3"),),
        ),
        labs=tuple(
            Lab(**dated(f"{code.value}-", number, code, delay=40 + number), value=base + number + patient, unit=unit)
            for code, base, unit in ((SODIUM, 130.0, "mmol/L"), (GLUCOSE, 100.0, "mg/dL"))
            for number in range(5)
        ),
        vitals=tuple(
            Vital(**dated("v", number, PULSE), value=70.0 + number + patient, unit="/min") for number in range(5)
        ),
        diagnoses=(Diagnosis(**dated("d", 1, ANEMIA), recorded_in=DiagnosisList.PROBLEM_LIST),),
        medications=tuple(Medication(**dated("m", number, IRON)) for number in range(2)),
    )


def changed(facts: PatientFacts, name: str, change: Callable[[Any], Any]) -> PatientFacts:
    """Give the facts with each one of a kind changed; None takes it away."""
    made = (change(fact) for fact in getattr(facts, name))
    return msgspec.structs.replace(facts, **{name: tuple(fact for fact in made if fact is not None)})


def found(
    emr: Callable[[PatientFacts], PatientFacts] = lambda facts: facts,
    warehouse: Callable[[PatientFacts], PatientFacts] = lambda facts: facts,
    **options: Any,
) -> tuple[Cause, ...]:
    """Find the causes for six patients, whose facts each side has changed in its own way."""
    pairs = [(emr(facts_of(patient)), warehouse(facts_of(patient)), AS_OF) for patient in range(6)]
    return find_causes(pairs, SPEC, **options).causes


def by_group(causes: tuple[Cause, ...]) -> dict[str, tuple[CauseKind, Side | None]]:
    assert len({cause.group for cause in causes}) == len(causes)
    return {cause.group: (cause.kind, cause.side) for cause in causes}


def test_sides_that_are_the_same_have_no_cause():
    assert found() == ()


def test_facts_that_no_order_can_see_are_no_cause():
    def with_more(facts: PatientFacts) -> PatientFacts:
        before, after = AS_OF - timedelta(days=40), AS_OF + timedelta(days=1)
        extra = tuple(
            Lab(fact_id=f"x{at}", codes=(SODIUM,), at=at, known_at=at, value=1.0, unit="mmol/L")
            for at in (before, after)
        )
        return msgspec.structs.replace(facts, labs=(*facts.labs, *extra))

    assert found(warehouse=with_more) == ()


# -- units


def test_results_a_thousandfold_are_a_unit_factor():
    def glucose_x1000(lab: Lab) -> Lab:
        if lab.codes != (GLUCOSE,) or lab.value is None:
            return lab
        return msgspec.structs.replace(lab, value=lab.value * 1000)

    (cause,) = found(emr=lambda facts: changed(facts, "labs", glucose_x1000))
    assert (cause.kind, cause.group, cause.facts) == (CauseKind.UNIT_FACTOR, "labs", 30)
    assert cause.explanation == (
        "2345-7: the EMR's results are 1000 times the warehouse's (EMR mg/dL, warehouse mg/dL)"
    )


def test_results_in_another_unit_that_was_mislabelled_are_a_unit_factor_though_they_are_rounded():
    def in_mmol(lab: Lab) -> Lab:
        if lab.codes != (GLUCOSE,) or lab.value is None:
            return lab
        return msgspec.structs.replace(lab, value=round(lab.value / 18.0156, 1))

    (cause,) = found(warehouse=lambda facts: changed(facts, "labs", in_mmol))
    assert cause.kind is CauseKind.UNIT_FACTOR
    assert "the EMR's results are 18" in cause.explanation


def test_a_unit_that_converts_is_no_cause():
    def in_mmol(lab: Lab) -> Lab:
        if lab.codes != (SODIUM,):
            return lab
        return msgspec.structs.replace(lab, unit="meq/L")

    assert found(warehouse=lambda facts: changed(facts, "labs", in_mmol)) == ()


def test_a_unit_that_nothing_converts_is_named_with_its_side():
    def other_spelling(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, unit="mg%") if lab.codes == (GLUCOSE,) else lab

    (cause,) = found(warehouse=lambda facts: changed(facts, "labs", other_spelling))
    assert (cause.kind, cause.side, cause.facts) == (CauseKind.UNIT_NOT_CONVERTED, Side.WAREHOUSE, 30)
    assert "'mg%'" in cause.explanation


def test_a_factor_of_some_results_alone_is_another_analyser():
    def ten_percent_more(lab: Lab) -> Lab:
        # Of five results of each patient the two latest.
        if lab.codes != (GLUCOSE,) or lab.value is None or lab.at < AS_OF - timedelta(days=5):
            return lab
        return msgspec.structs.replace(lab, value=lab.value * 1.1)

    (cause,) = found(emr=lambda facts: changed(facts, "labs", ten_percent_more))
    assert (cause.kind, cause.facts, cause.of, cause.example) == (CauseKind.OTHER_ANALYSER, 12, 30, "2345-7")
    assert "40% of the EMR's 30 results are 1.1 times the warehouse's" in cause.explanation


def test_a_unit_that_converts_and_loses_digits_is_another_unit():
    def in_mmol(lab: Lab) -> Lab:
        if lab.codes != (GLUCOSE,) or lab.value is None:
            return lab
        return msgspec.structs.replace(lab, value=round(lab.value / 18.0156, 1), unit="mmol/L")

    (cause,) = found(emr=lambda facts: changed(facts, "labs", in_mmol))
    assert (cause.kind, cause.facts, cause.of) == (CauseKind.OTHER_UNIT, 30, 30)
    assert "the EMR gives mmol/L, the warehouse mg/dL" in cause.explanation


# -- elements that are missing


def charts_of(hidden: Callable[[PatientFacts], PatientFacts], undated: Callable[[PatientFacts], PatientFacts]):
    """Give the charts of the six patients: what each holds with its dates, and what without."""
    return {f"p{n}": Chart(facts=hidden(facts_of(n)), undated=undated(facts_of(n))) for n in range(6)}


def only(kind: str) -> Callable[[PatientFacts], PatientFacts]:
    """Give a function that leaves one kind of facts alone."""
    others = {"labs", "vitals", "diagnoses", "medications"} - {kind}
    return lambda facts: msgspec.structs.replace(facts, **dict.fromkeys(others, ()))


def test_diagnoses_without_their_date_are_a_missing_element_and_no_missing_group():
    def without(facts: PatientFacts) -> PatientFacts:
        return msgspec.structs.replace(facts, diagnoses=())

    (cause,) = found(emr=without, charts=charts_of(without, only("diagnoses")))
    assert (cause.kind, cause.group, cause.side) == (CauseKind.MISSING_ELEMENT, "problems", Side.EMR)
    assert (cause.facts, cause.of, cause.example) == (6, 6, "Condition.recordedDate of D50.9")


def test_results_without_their_release_time_are_found_by_the_instant_of_their_specimen():
    def without_sodium(facts: PatientFacts) -> PatientFacts:
        return changed(facts, "labs", lambda lab: None if lab.codes == (SODIUM,) else lab)

    (cause,) = found(emr=without_sodium, charts=charts_of(without_sodium, only("labs")))
    assert (cause.kind, cause.facts, cause.of) == (CauseKind.MISSING_ELEMENT, 30, 60)
    assert cause.example == "Observation.issued of 2951-2"


@pytest.mark.parametrize(
    ("change", "example"),
    [
        ({"value": None}, "Observation.value[x] of 2951-2"),
        ({"codes": ()}, "Observation.code of 2951-2"),
    ],
    ids=["number", "code"],
)
def test_results_without_a_number_or_a_code_are_a_missing_element(change, example):
    def without(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, **change) if lab.codes == (SODIUM,) else lab

    (cause,) = found(emr=lambda facts: changed(facts, "labs", without))
    assert (cause.kind, cause.group, cause.facts, cause.of) == (CauseKind.MISSING_ELEMENT, "labs", 30, 60)
    assert cause.example == example


def test_results_without_their_range_are_a_missing_element_though_no_feature_differs():
    def ranged(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, reference_low=1.0, reference_high=900.0)

    (cause,) = found(warehouse=lambda facts: changed(facts, "labs", ranged))
    assert (cause.kind, cause.facts, cause.of) == (CauseKind.MISSING_ELEMENT, 60, 60)
    assert cause.example.startswith("Observation.referenceRange of ")


def test_what_is_gone_without_a_trace_is_counted_as_missing_facts():
    def without_old(lab: Lab) -> Lab | None:
        return None if lab.at < AS_OF - timedelta(days=12) else lab

    (cause,) = found(emr=lambda facts: changed(facts, "labs", without_old))
    # Of each patient the oldest of five results of each test.
    assert (cause.kind, cause.side, cause.facts, cause.of) == (CauseKind.MISSING_FACTS, Side.EMR, 12, 60)


def test_a_race_that_is_not_said_of_some_is_a_missing_element():
    def without_race(facts: PatientFacts) -> PatientFacts:
        if facts.patient_id in {"p0", "p1"}:
            return facts
        return msgspec.structs.replace(facts, demographics=msgspec.structs.replace(facts.demographics, races=()))

    (cause,) = found(emr=without_race)
    assert (cause.kind, cause.group, cause.facts, cause.of) == (CauseKind.MISSING_ELEMENT, "race", 4, 6)


# -- codes


def test_the_same_codes_in_an_unmapped_system_are_a_code_system_and_the_warehouses_is_patched():
    def unmapped(fact: Any) -> Any:
        codes = tuple(Code("urn:omop:source-value:drug_exposure", code.value) for code in fact.codes)
        return msgspec.structs.replace(fact, codes=codes)

    (cause,) = found(warehouse=lambda facts: changed(facts, "medications", unmapped))
    assert (cause.kind, cause.group, cause.side, cause.facts) == (
        CauseKind.CODE_SYSTEM,
        "drugs",
        Side.WAREHOUSE,
        12,
    )
    assert cause.patch == {"local_systems": {"drug_exposure": RXNORM}}


def test_the_emrs_system_is_named_and_the_mapping_left_alone():
    def unmapped(fact: Any) -> Any:
        codes = tuple(Code("urn:oid:2.16.840.1.113883.6.90", "D509") for _ in fact.codes)
        return msgspec.structs.replace(fact, codes=codes)

    (cause,) = found(emr=lambda facts: changed(facts, "diagnoses", unmapped))
    assert (cause.kind, cause.group, cause.side) == (CauseKind.CODE_SYSTEM, "problems", Side.EMR)
    assert "urn:oid:2.16.840.1.113883.6.90" in cause.explanation
    assert cause.patch == {}


def test_results_under_local_codes_are_found_by_their_instant_and_number():
    def local(lab: Lab) -> Lab:
        if lab.codes != (SODIUM,):
            return lab
        return msgspec.structs.replace(lab, codes=(Code("urn:lab", "NA"),))

    (cause,) = found(warehouse=lambda facts: changed(facts, "labs", local))
    assert (cause.kind, cause.group, cause.side, cause.facts) == (CauseKind.CODE_SYSTEM, "labs", Side.WAREHOUSE, 30)
    assert "NA for 2951-2" in cause.explanation


# -- times


def shifted(by: Callable[[datetime], timedelta]) -> Callable[[Any], Any]:
    def shift(fact: Any) -> Any:
        return msgspec.structs.replace(fact, at=fact.at + by(fact.at), known_at=fact.known_at + by(fact.known_at))

    return shift


def test_times_a_constant_distance_apart_are_a_time_zone_and_the_right_one_is_named():
    # The wall clock is at -5 h; the mapping reads it as UTC, five hours too early.
    causes = found(
        warehouse=lambda facts: changed(facts, "labs", shifted(lambda _: timedelta(hours=-5))), warehouse_zone=UTC
    )
    (cause,) = causes
    assert (cause.kind, cause.group) == (CauseKind.TIME_ZONE, "labs")
    assert cause.patch == {"time_zone": "-05:00"}
    assert "5 h later in the EMR" in cause.explanation


def test_a_whole_extract_in_the_wrong_zone_is_found_in_every_group():
    def wrong(facts: PatientFacts) -> PatientFacts:
        for name in ("labs", "vitals", "diagnoses", "medications"):
            facts = changed(facts, name, shifted(lambda _: timedelta(hours=5, minutes=45)))
        return facts

    causes = found(warehouse=wrong, warehouse_zone=UTC)
    assert by_group(causes) == dict.fromkeys(("labs", "vitals", "problems", "drugs"), (CauseKind.TIME_ZONE, None))
    assert {cause.patch["time_zone"] for cause in causes} == {"+05:45"}


def test_the_zone_that_the_mapping_has_now_is_reckoned_with():
    causes = found(
        warehouse=lambda facts: changed(facts, "labs", shifted(lambda _: timedelta(hours=-1))),
        warehouse_zone=timezone(timedelta(hours=-5)),
    )
    assert causes[0].patch == {"time_zone": "-06:00"}


def test_two_distances_an_hour_apart_are_a_zone_with_summer_time():
    new_york = ZoneInfo("America/New_York")

    def as_utc(at: datetime) -> timedelta:
        return at.astimezone(new_york).utcoffset() or timedelta(0)

    def in_two_seasons(facts: PatientFacts) -> PatientFacts:
        half_a_year = timedelta(days=182)
        old = (
            msgspec.structs.replace(fact, fact_id=f"{fact.fact_id}-old", at=fact.at - half_a_year,
                                    known_at=fact.known_at - half_a_year)
            for fact in facts.medications
        )  # fmt: skip
        return msgspec.structs.replace(facts, medications=(*facts.medications, *old))

    (cause,) = found(
        emr=in_two_seasons,
        warehouse=lambda facts: changed(in_two_seasons(facts), "medications", shifted(as_utc)),
        warehouse_zone=UTC,
    )
    assert (cause.kind, cause.group) == (CauseKind.TIME_ZONE, "drugs")
    assert "4 h or 5 h" in cause.explanation
    assert "summer time" in cause.explanation
    assert cause.patch == {}


def test_results_that_are_known_later_in_the_emr_are_late():
    def late(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, known_at=lab.known_at + timedelta(hours=3))

    (cause,) = found(emr=lambda facts: changed(facts, "labs", late))
    assert (cause.kind, cause.group, cause.side) == (CauseKind.LATE_RESULTS, "labs", Side.EMR)
    assert "the median lag is 180 minutes" in cause.explanation
    assert cause.patch == {}


def test_a_delay_that_the_mapping_assumes_is_patched_to_the_one_that_the_emr_shows():
    def assumed(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, known_at=lab.at + timedelta(minutes=240))

    (cause,) = found(warehouse=lambda facts: changed(facts, "labs", assumed))
    assert (cause.kind, cause.side) == (CauseKind.LATE_RESULTS, Side.WAREHOUSE)
    # The EMR releases after 40, 41, 42, 43 and 44 minutes.
    assert cause.patch == {"result_delay_minutes": 42}


def test_how_late_facts_are_is_told_even_where_it_changes_nothing():
    def later(lab: Lab) -> Lab:
        return msgspec.structs.replace(lab, known_at=lab.known_at + timedelta(minutes=2))

    orders = [
        PairedOrder(as_of=AS_OF, emr=changed(facts_of(n), "labs", later), warehouse=facts_of(n)) for n in range(6)
    ]
    report = parity_report(orders, SPEC)
    assert report.features_equal == report.features_compared
    assert report.causes == ()
    assert report.lateness[0] == Lateness(
        group="labs", joined=60, emr_later=60, warehouse_later=0, median_minutes=2.0, largest_minutes=2.0
    )


# -- what is not there


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("kind", "group", "facts"), [("medications", "drugs", 12), ("vitals", "vitals", 30), ("labs", "labs", 60)]
)
def test_a_group_that_one_side_has_nothing_of_is_missing(side, kind, group, facts):
    def without(held: PatientFacts) -> PatientFacts:
        return changed(held, kind, lambda _: None)

    (cause,) = found(**{side.value: without})
    assert (cause.kind, cause.group, cause.side, cause.facts) == (CauseKind.MISSING_GROUP, group, side, facts)


def test_what_one_side_does_not_say_of_the_patients_is_missing():
    def without_race(facts: PatientFacts) -> PatientFacts:
        return msgspec.structs.replace(facts, demographics=msgspec.structs.replace(facts.demographics, races=()))

    assert by_group(found(emr=without_race)) == {"race": (CauseKind.MISSING_GROUP, Side.EMR)}


def test_codes_and_units_that_only_one_side_shows_are_listed():
    def other(lab: Lab) -> Lab | None:
        if lab.codes == (GLUCOSE,):
            return None
        return msgspec.structs.replace(lab, unit="meq/L")

    pairs = [(changed(facts_of(n), "labs", other), facts_of(n), AS_OF) for n in range(6)]
    assert find_causes(pairs, SPEC).one_sided == (
        OneSided(group="labs", what="code", name="2345-7", side=Side.WAREHOUSE, facts=30),
        OneSided(group="labs", what="unit", name="2951-2: meq/L", side=Side.EMR, facts=30),
        OneSided(group="labs", what="unit", name="2345-7: mg/dL", side=Side.WAREHOUSE, facts=30),
        OneSided(group="labs", what="unit", name="2951-2: mmol/L", side=Side.WAREHOUSE, facts=30),
    )


# -- all of it together


def test_several_causes_at_once_are_each_found_and_their_patches_put_together():
    def wrong(facts: PatientFacts) -> PatientFacts:
        facts = changed(facts, "labs", shifted(lambda _: timedelta(hours=-5)))
        facts = changed(facts, "vitals", lambda _: None)
        return changed(
            facts,
            "medications",
            lambda fact: msgspec.structs.replace(fact, codes=(Code("urn:local", IRON.value),)),
        )

    orders = [PairedOrder(as_of=AS_OF, emr=facts_of(n), warehouse=wrong(facts_of(n))) for n in range(6)]
    report = parity_report(orders, SPEC, warehouse_zone=UTC)
    assert {cause.group: cause.kind for cause in report.causes} == {
        "labs": CauseKind.TIME_ZONE,
        "vitals": CauseKind.MISSING_GROUP,
        "drugs": CauseKind.CODE_SYSTEM,
    }
    assert report.mapping_patch == {"time_zone": "-05:00", "local_systems": {"drug_exposure": RXNORM}}


def test_an_emr_that_gives_each_order_only_its_window_is_compared_with_a_whole_warehouse():
    """Several orders of one patient: each fact counts once, and what an order could not see yet is not missing."""
    whole = facts_of(0)
    pairs = []
    for hours in (0, 80, 200):
        as_of = AS_OF - timedelta(hours=hours)
        window = changed(whole, "labs", lambda lab, as_of=as_of: lab if lab.known_at <= as_of else None)
        pairs.append((window, whole, as_of))
    findings = find_causes(pairs, SPEC)
    assert findings.causes == ()
    assert next(late for late in findings.lateness if late.group == "labs").joined == 10


def test_what_was_compared_shows_nothing_of_a_patient():
    orders = [PairedOrder(as_of=AS_OF, emr=facts_of(n), warehouse=facts_of(n), label=1.0) for n in range(2)]
    assert "p0" not in repr(orders)
    assert "1.0" not in repr(orders)
