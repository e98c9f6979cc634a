"""What the columns of an OMOP extract become."""

# ruff: noqa: DTZ001 — the fact tables hold UTC without saying so

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployr_core.codes import (
    ICD9CM,
    ICD10CM,
    LOINC,
    OMB_RACE_ETHNICITY,
    SNOMED,
    SYSTEM_OF_OMOP_VOCABULARY,
    Code,
)
from deployr_core.facts import BirthDate, DiagnosisList, OrderStatus, PatientFacts, Sex
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.mapping import SourceMapping, shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

MakeExtract = Callable[..., Path]


def omop(**changes: Any) -> SourceMapping:
    """Give the mapping of OMOP 5.4 with other conventions."""
    return msgspec.structs.replace(shipped_mapping("omop54"), name="test", **changes)


KATHMANDU = omop(time_zone="+05:45")
MORNING = datetime(2015, 1, 6, 2, 15, tzinfo=UTC)
"""8:00 on 6 January 2015 in Kathmandu, 5:45 ahead of UTC."""


def only_patient(folder: Path, mapping: SourceMapping = KATHMANDU) -> PatientFacts:
    with Extract.open(folder, mapping) as extract:
        (patient,) = extract.patients()
    return patient


def measured(**changes: object) -> dict[str, object]:
    """Give a row of ``measurement``: a hematocrit of 37.5 %, drawn at 8:00 local time, of no order."""
    return {
        "measurement_id": 11,
        "person_id": 1,
        "measurement_concept_id": 3023314,
        "measurement_date": "2015-01-06",
        "measurement_datetime": "2015-01-06 08:00:00",
        "value_as_number": 37.5,
        "unit_concept_id": 8554,
        "unit_source_value": "percent",
        **changes,
    }


def ordered(**changes: object) -> dict[str, object]:
    """Give a row of ``ext_lab_order``: a blood count ordered and drawn at 8:00, resulted at 8:20."""
    return {
        "order_id": 501,
        "person_id": 1,
        "visit_occurrence_id": 7,
        "panel": "CBC",
        "panel_loinc": "58410-2",
        "order_datetime": "2015-01-06 08:00:00",
        "collect_datetime": "2015-01-06 08:00:00",
        "result_datetime": "2015-01-06 08:20:00",
        **changes,
    }


def diagnosed(**changes: object) -> dict[str, object]:
    return {
        "condition_occurrence_id": 21,
        "person_id": 1,
        "condition_start_date": "2015-01-06",
        "condition_start_datetime": "2015-01-06 08:00:00",
        "condition_type_concept_id": 32817,
        **changes,
    }


def test_a_result_is_known_when_its_order_was_resulted(make_extract: MakeExtract):
    folder = make_extract(measurement=[measured(measurement_event_id=501)], ext_lab_order=[ordered()])

    (lab,) = only_patient(folder).labs

    assert (lab.fact_id, lab.codes, lab.value, lab.order_id) == ("11", (Code(LOINC, "4544-3"),), 37.5, "501")
    assert lab.at == MORNING
    assert lab.known_at == datetime(2015, 1, 6, 2, 35, tzinfo=UTC)


@pytest.mark.parametrize(
    "order",
    [
        {"order_id": 502},
        {"person_id": 2},
        {"result_datetime": ""},
    ],
    ids=["another order", "another person's order", "an order without a release time"],
)
def test_a_result_of_which_nobody_knows_the_release_is_known_an_hour_after_the_specimen(
    make_extract: MakeExtract, order: dict[str, object]
):
    folder = make_extract(measurement=[measured(measurement_event_id=501)], ext_lab_order=[ordered(**order)])

    (lab,) = only_patient(folder).labs

    assert lab.known_at == datetime(2015, 1, 6, 3, 15, tzinfo=UTC)
    assert lab.order_id == ("501" if "result_datetime" in order else None)


def test_the_mapping_says_how_long_results_without_an_order_take(make_extract: MakeExtract):
    mapping = omop(time_zone="+05:45", result_delay_minutes=0)

    (lab,) = only_patient(make_extract(measurement=[measured()]), mapping).labs

    assert lab.known_at == lab.at == MORNING


def test_a_day_without_a_time_starts_at_local_midnight_and_is_known_at_the_next(make_extract: MakeExtract):
    (diagnosis,) = only_patient(make_extract(condition_occurrence=[diagnosed(condition_start_datetime="")])).diagnoses

    assert diagnosis.at == datetime(2015, 1, 5, 18, 15, tzinfo=UTC)
    assert diagnosis.known_at == datetime(2015, 1, 6, 18, 15, tzinfo=UTC)


def test_a_time_column_of_midnights_alone_holds_days(make_extract: MakeExtract):
    midnights = [
        diagnosed(condition_start_datetime="2015-01-06 00:00:00"),
        diagnosed(condition_occurrence_id=22, condition_start_datetime="2015-01-06"),
    ]

    diagnoses = only_patient(make_extract(condition_occurrence=midnights)).diagnoses

    assert {fact.known_at for fact in diagnoses} == {datetime(2015, 1, 6, 18, 15, tzinfo=UTC)}


def test_one_midnight_among_other_times_is_a_time(make_extract: MakeExtract):
    rows = [diagnosed(condition_start_datetime="2015-01-06 00:00:00"), diagnosed(condition_occurrence_id=22)]

    first, _ = only_patient(make_extract(condition_occurrence=rows)).diagnoses

    assert first.known_at == first.at == datetime(2015, 1, 5, 18, 15, tzinfo=UTC)


def test_the_hour_that_daylight_saving_repeats_is_taken_as_its_first(make_extract: MakeExtract):
    zone = omop(time_zone="America/New_York")
    folder = make_extract(condition_occurrence=[diagnosed(condition_start_datetime="2015-11-01 01:30:00")])

    assert only_patient(folder, zone).diagnoses[0].at == datetime(2015, 11, 1, 5, 30, tzinfo=UTC)


def test_a_row_without_any_time_is_no_fact_but_is_counted(make_extract: MakeExtract):
    folder = make_extract(condition_occurrence=[diagnosed(condition_start_date="", condition_start_datetime="")])

    with Extract.open(folder, KATHMANDU) as extract:
        (patient,) = extract.patients()
        assert patient.diagnoses == ()
        assert extract.undated_rows["condition_occurrence"] == 1


@pytest.mark.parametrize(
    ("changes", "unit"),
    [
        ({}, "%"),
        ({"unit_concept_id": 9999}, "percent"),
        ({"unit_concept_id": 3023314}, "percent"),
        ({"unit_concept_id": 0, "unit_source_value": ""}, ""),
    ],
    ids=["UCUM concept", "concept not in the extract", "concept of another vocabulary", "no unit"],
)
def test_the_unit_is_the_ucum_code_or_else_the_source_text(
    make_extract: MakeExtract, changes: dict[str, object], unit: str
):
    assert only_patient(make_extract(measurement=[measured(**changes)])).labs[0].unit == unit


CONCEPTS: list[dict[str, object]] = [
    {"concept_id": 0, "vocabulary_id": "None", "concept_code": "No matching concept"},
    {"concept_id": 1, "vocabulary_id": "ICD10CM", "concept_code": "I48.0"},
    {"concept_id": 2, "vocabulary_id": "SNOMED", "concept_code": "282825002"},
    {"concept_id": 3, "vocabulary_id": "Read", "concept_code": "G5730"},
]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        (
            {"condition_source_concept_id": 1, "condition_concept_id": 2},
            (Code(ICD10CM, "I48.0"), Code(SNOMED, "282825002")),
        ),
        ({"condition_source_concept_id": 1, "condition_concept_id": 1}, (Code(ICD10CM, "I48.0"),)),
        ({"condition_source_concept_id": 0, "condition_concept_id": 3}, (Code("urn:omop:vocabulary:Read", "G5730"),)),
        ({"condition_source_concept_id": 77, "condition_concept_id": 0}, (Code(ICD9CM, "427.31"),)),
        ({"condition_status_source_value": "final"}, (Code("urn:omop:source-value:condition_occurrence", "427.31"),)),
        ({"condition_source_value": ""}, ()),
    ],
    ids=["source, then standard", "each once", "unknown vocabulary", "row's vocabulary", "no system", "no code"],
)
def test_codes_come_from_the_concepts_or_else_from_the_source_value(
    make_extract: MakeExtract, changes: dict[str, object], codes: tuple[Code, ...]
):
    row = diagnosed(**{"condition_source_value": "427.31", "condition_status_source_value": "ICD9CM", **changes})

    assert only_patient(make_extract(concept=CONCEPTS, condition_occurrence=[row])).diagnoses[0].codes == codes


def test_source_values_of_drugs_are_in_the_mappings_local_system_as_they_are_spelt(make_extract: MakeExtract):
    drug = {
        "drug_exposure_id": 31,
        "person_id": 1,
        "drug_exposure_start_date": "2015-01-06",
        "drug_exposure_start_datetime": "2015-01-06 08:00:00",
        "drug_source_value": "0042",
    }
    mapping = omop(time_zone="+05:45", local_systems={"drug_exposure": "urn:fdb:hicl"})

    (medication,) = only_patient(make_extract(drug_exposure=[drug]), mapping).medications

    assert (medication.fact_id, medication.codes) == ("31", (Code("urn:fdb:hicl", "0042"),))
    assert medication.at == medication.known_at == MORNING


@pytest.mark.parametrize(
    ("type_concept", "recorded_in"), [(32840, DiagnosisList.PROBLEM_LIST), (32817, DiagnosisList.ENCOUNTER)]
)
def test_the_type_concept_says_on_which_list_a_diagnosis_was_recorded(
    make_extract: MakeExtract, type_concept: int, recorded_in: DiagnosisList
):
    folder = make_extract(condition_occurrence=[diagnosed(condition_type_concept_id=type_concept)])

    assert only_patient(folder).diagnoses[0].recorded_in is recorded_in


def test_demographics_are_categories_or_unknown(make_extract: MakeExtract):
    folder = make_extract(
        person=[
            {
                "person_id": 1,
                "gender_concept_id": 8507,
                "year_of_birth": "1951.0",
                "month_of_birth": 2,
                "race_concept_id": 8516,
                "ethnicity_concept_id": 38003563,
            },
            {"person_id": 2, "day_of_birth": 3},
        ]
    )

    with Extract.open(folder, KATHMANDU) as extract:
        known, unknown = (patient.demographics for patient in extract.patients())

    assert (known.sex, known.birth_date) == (Sex.MALE, BirthDate(year=1951, month=2))
    assert known.races == (Code(OMB_RACE_ETHNICITY, "2054-5"),)
    assert known.ethnicities == (Code(OMB_RACE_ETHNICITY, "2135-2"),)
    assert (unknown.sex, unknown.birth_date, unknown.races, unknown.ethnicities) == (Sex.UNKNOWN, None, (), ())


def test_patients_come_in_order_of_their_id_each_with_their_own_facts(make_extract: MakeExtract):
    folder = make_extract(
        person=[{"person_id": person} for person in (30, 4, 100, 5)],
        measurement=[measured(measurement_id=n, person_id=person) for n, person in ((1, 100), (2, 4), (3, 100))],
        condition_occurrence=[diagnosed(person_id=person) for person in (3, 30)],
    )

    with Extract.open(folder, KATHMANDU) as extract:
        everybody = [(who.patient_id, len(who.labs), len(who.diagnoses)) for who in extract.patients()]
        some = [(who.patient_id, [lab.fact_id for lab in who.labs]) for who in extract.patients({100, 5, 9})]
        assert extract.person_ids() == (4, 5, 30, 100)

    assert everybody == [("4", 1, 0), ("5", 0, 0), ("30", 0, 1), ("100", 2, 0)]
    assert some == [("5", []), ("100", ["1", "3"])]


def test_demographics_alone_are_those_of_the_patients_who_were_asked_for(make_extract: MakeExtract):
    people = [
        {"person_id": 1, "year_of_birth": 1950, "gender_concept_id": 8532, "race_concept_id": 8527},
        {"person_id": 2, "year_of_birth": 1960, "gender_concept_id": 8507},
        {"person_id": 3, "year_of_birth": 1970},
    ]

    with Extract.open(make_extract(person=people), KATHMANDU) as extract:
        alone = extract.demographics({1, 3, 9})
        with_facts = {int(each.patient_id): each.demographics for each in extract.patients({1, 3, 9})}

    assert {person: who.birth_date.year for person, who in alone.items()} == {1: 1950, 3: 1970}
    assert alone == with_facts


def test_persons_are_named_as_outside_the_warehouse(make_extract: MakeExtract):
    folder = make_extract(person=[{"person_id": 1, "person_source_value": "002-1039"}, {"person_id": 2}])

    with Extract.open(folder, KATHMANDU) as extract:
        assert extract.patient_source_values() == {1: "002-1039"}


def test_orders_come_by_person_and_time_for_the_panels_that_were_asked_for(make_extract: MakeExtract):
    folder = make_extract(
        ext_lab_order=[
            ordered(order_id=3, order_datetime="2015-01-06 09:00:00", result_datetime=""),
            ordered(order_id=2),
            ordered(order_id=4, panel_loinc="24323-8"),
            ordered(order_id=5, order_datetime=""),
        ]
    )

    with Extract.open(folder, KATHMANDU) as extract:
        orders = list(extract.lab_orders({"58410-2"}))
        assert extract.undated_rows["ext_lab_order"] == 1

    assert [(order.order_id, order.visit_occurrence_id) for order in orders] == [("2", "7"), ("3", "7")]
    assert (orders[0].ordered_at, orders[0].collected_at) == (MORNING, MORNING)
    assert orders[1].resulted_at is None


def test_only_results_of_the_components_come_for_the_cohort(make_extract: MakeExtract):
    loinc = omop(local_systems={"measurement": LOINC})
    rows = [
        measured(),
        measured(measurement_id=12, measurement_concept_id=0, measurement_source_value="4544-3"),
        measured(measurement_id=13, measurement_concept_id=0, measurement_source_value="718-7"),
    ]

    with Extract.open(make_extract(measurement=rows), loinc) as extract:
        found = [(person, lab.fact_id, lab.codes) for person, lab in extract.results_of({"4544-3"})]

    assert found == [(1, "11", (Code(LOINC, "4544-3"),)), (1, "12", (Code(LOINC, "4544-3"),))]


@pytest.mark.parametrize("ending", [".csv.gz", ".parquet"])
def test_every_file_format_gives_the_same_facts(make_extract: MakeExtract, tmp_path: Path, ending: str):
    tables = {
        "measurement": [measured(measurement_event_id=501, range_low=35, range_high=47.0)],
        "ext_lab_order": [ordered()],
        "condition_occurrence": [diagnosed(), diagnosed(condition_occurrence_id=22, condition_start_datetime="")],
    }
    folder = make_extract(ending=".csv" if ending == ".parquet" else ending, **tables)
    if ending == ".parquet":
        to_parquet(folder)

    patient = only_patient(folder)

    assert [(lab.fact_id, lab.at, lab.unit, lab.reference_low) for lab in patient.labs] == [("11", MORNING, "%", 35.0)]
    assert [fact.at for fact in patient.diagnoses] == [MORNING, datetime(2015, 1, 5, 18, 15, tzinfo=UTC)]


def test_parquet_times_that_are_instants_need_no_zone(make_extract: MakeExtract):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = make_extract(without={"condition_occurrence"})
    rows = [
        diagnosed(
            condition_concept_id=None,
            condition_source_concept_id=None,
            condition_status_source_value=None,
            condition_source_value="I48.0",
            condition_start_datetime=moment,
            condition_occurrence_id=number,
        )
        for number, moment in enumerate((MORNING, datetime(2015, 1, 7, tzinfo=UTC)))
    ]
    # Upper-case names are what Oracle and Snowflake hand out.
    pq.write_table(
        pa.Table.from_pylist([{name.upper(): value for name, value in row.items()} for row in rows]),
        folder / "CONDITION_OCCURRENCE.parquet",
    )

    assert [fact.known_at for fact in only_patient(folder).diagnoses] == [
        MORNING,
        datetime(2015, 1, 7, tzinfo=UTC),
    ]


def to_parquet(folder: Path) -> None:
    """Turn every CSV of the folder into Parquet, with the types that DuckDB sees in it."""
    import duckdb

    for path in folder.glob("*.csv"):
        target = path.with_suffix(".parquet")
        duckdb.read_csv(str(path), header=True).write_parquet(str(target))
        path.unlink()


def test_an_extract_says_nothing_of_its_patients_when_printed(make_extract: MakeExtract):
    with Extract.open(make_extract(), KATHMANDU) as extract:
        assert "A-1" not in repr(list(extract.patients()))


def test_a_row_with_a_source_and_a_standard_concept_is_one_fact_in_two_rows(make_extract: MakeExtract):
    row = diagnosed(condition_source_concept_id=1, condition_concept_id=2)

    with Extract.open(make_extract(concept=CONCEPTS, condition_occurrence=[row]), KATHMANDU) as extract:
        rows = extract.connection.execute("SELECT fact_id, system, code FROM diagnoses ORDER BY system").fetchall()

    assert rows == [("21", ICD10CM, "I48.0"), ("21", SNOMED, "282825002")]


VITAL = {"concept_id": 3027018, "vocabulary_id": "LOINC", "concept_code": "8867-4"}


def test_measurements_at_the_bedside_are_vitals_and_known_when_they_were_taken(make_extract: MakeExtract):
    rows = [measured(), measured(measurement_id=12, measurement_concept_id=3027018, value_as_number=72)]
    hematocrit = {"concept_id": 3023314, "vocabulary_id": "LOINC", "concept_code": "4544-3"}

    patient = only_patient(make_extract(concept=[hematocrit, VITAL], measurement=rows))

    assert [lab.fact_id for lab in patient.labs] == ["11"]
    assert [(vital.codes, vital.value, vital.at, vital.known_at) for vital in patient.vitals] == [
        ((Code(LOINC, "8867-4"),), 72.0, MORNING, MORNING)
    ]


def test_a_vital_that_is_only_a_loinc_source_value_is_one_too(make_extract: MakeExtract):
    row = measured(measurement_concept_id=0, measurement_source_value="8867-4")

    patient = only_patient(make_extract(measurement=[row]), omop(local_systems={"measurement": LOINC}))

    assert (len(patient.labs), [vital.codes for vital in patient.vitals]) == (0, [(Code(LOINC, "8867-4"),)])


def visited(**changes: object) -> dict[str, object]:
    return {
        "visit_occurrence_id": 7,
        "person_id": 1,
        "visit_start_date": "2015-01-06",
        "visit_start_datetime": "2015-01-06 08:00:00",
        **changes,
    }


@pytest.mark.parametrize(("concept", "code"), [(9201, "IMP"), (262, "IMP"), (9203, "EMER"), (9202, "AMB")])
def test_visits_have_the_class_that_fhir_gives_them(make_extract: MakeExtract, concept: int, code: str):
    (visit,) = only_patient(make_extract(visit_occurrence=[visited(visit_concept_id=concept)])).visits

    assert visit.codes == (Code("http://terminology.hl7.org/CodeSystem/v3-ActCode", code),)
    assert visit.at == visit.known_at == MORNING


def test_a_visits_end_and_where_to_are_kept(make_extract: MakeExtract):
    row = visited(visit_end_datetime="2015-01-08 08:00:00", discharged_to_source_value="SNF")

    with Extract.open(make_extract(visit_occurrence=[row, visited(visit_occurrence_id=8)]), KATHMANDU) as extract:
        ends = extract.connection.execute("SELECT ended_at, discharged_to FROM visits ORDER BY fact_id").fetchall()

    assert ends == [(datetime(2015, 1, 8, 2, 15), "SNF"), (None, None)]


def test_procedures_and_deaths_are_read_where_the_tables_are(make_extract: MakeExtract):
    procedure = {
        "procedure_occurrence_id": 41,
        "person_id": 1,
        "procedure_datetime": "2015-01-06 08:00:00",
        "procedure_source_value": "0DTJ4ZZ",
    }
    folder = make_extract(procedure_occurrence=[procedure], death=[{"person_id": 1, "death_date": "2015-01-06"}])

    with Extract.open(folder, KATHMANDU) as extract:
        (patient,) = extract.patients()
        deaths = extract.connection.execute("SELECT person_id, happened_at, known_at FROM deaths").fetchall()

    assert [(fact.codes, fact.known_at) for fact in patient.procedures] == [
        ((Code("urn:omop:source-value:procedure_occurrence", "0DTJ4ZZ"),), MORNING)
    ]
    assert deaths == [(1, datetime(2015, 1, 5, 18, 15), datetime(2015, 1, 6, 18, 15))]


def test_orders_are_open_until_they_are_resulted(make_extract: MakeExtract):
    folder = make_extract(ext_lab_order=[ordered(), ordered(order_id=502, result_datetime="")])

    orders = only_patient(folder).orders

    assert [(order.fact_id, order.codes, order.encounter_id, order.status) for order in orders] == [
        ("501", (Code(LOINC, "58410-2"),), "7", OrderStatus.DONE),
        ("502", (Code(LOINC, "58410-2"),), "7", OrderStatus.OPEN),
    ]


def test_without_its_optional_tables_an_extract_has_no_orders_procedures_and_deaths(make_extract: MakeExtract):
    with Extract.open(make_extract(measurement=[measured()]), KATHMANDU) as extract:
        (patient,) = extract.patients()
        assert list(extract.lab_orders({"58410-2"})) == []

    assert (patient.orders, patient.procedures, len(patient.labs)) == ((), (), 1)


def test_omop_53_has_other_names_and_no_link_to_the_order(make_extract: MakeExtract):
    folder = make_extract(measurement=[measured(measurement_event_id=501)], ext_lab_order=[ordered()])
    for table, old, new in (
        ("measurement", "measurement_event_id", "unread"),
        ("visit_occurrence", "discharged_to_source_value", "discharge_to_source_value"),
    ):
        path = folder / f"{table}.csv"
        path.write_text(path.read_text().replace(old, new))

    with pytest.raises(ExtractInvalid, match=r"measurement\.csv lacks the column measurement_event_id"):
        Extract.open(folder, shipped_mapping("omop54"))
    with Extract.open(folder, shipped_mapping("omop53")) as extract:
        (patient,) = extract.patients()

    assert [(lab.order_id, len(patient.orders)) for lab in patient.labs] == [(None, 1)]


def test_the_vocabularies_systems_are_those_of_the_core():
    assert shipped_mapping("omop54").lookups["vocabulary_system"] == SYSTEM_OF_OMOP_VOCABULARY
