"""One FHIR resource to one fact, at every edge of what a server may send."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from deployr_core.codes import ICD10CM, LOINC, OMB_RACE_ETHNICITY, SNOMED, Code
from deployr_core.facts import BirthDate, DiagnosisList, OrderStatus, Sex
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_elements import preferred_language
from deployr_serve.core.request import FHIR_ID

KATHMANDU = timezone(timedelta(hours=5, minutes=45))


def decoded(resource, kind):
    return msgspec.json.decode(json.dumps(resource), type=kind)


@pytest.fixture
def dropped():
    return Counter()


@pytest.fixture
def lab(observation, dropped, fhir_base):
    """Give a function that reads a laboratory result with these elements."""

    def run(*, latest=None, **elements):
        resource = decoded(observation(**elements), wire.Observation)
        return read.lab(resource, fhir_base=fhir_base, zone=KATHMANDU, dropped=dropped, latest=latest)

    return run


@pytest.fixture
def diagnosis(condition, dropped):
    def run(**elements):
        return read.diagnosis(decoded(condition(**elements), wire.Condition), zone=KATHMANDU, dropped=dropped)

    return run


@pytest.fixture
def medication(medication_request, dropped):
    def run(*, medications=None, **elements):
        resource = decoded(medication_request(**elements), wire.MedicationRequest)
        return read.medication(resource, zone=KATHMANDU, dropped=dropped, medications=medications or {})

    return run


# -- laboratory results


def test_a_result_is_dated_by_its_specimen_and_known_from_its_release(lab):
    fact = lab()
    assert fact.fact_id == "lab1"
    assert fact.at == datetime(2015, 1, 6, 18, 55, tzinfo=UTC)
    assert fact.known_at == datetime(2015, 1, 6, 19, 55, tzinfo=UTC)
    assert (fact.value, fact.unit, fact.codes) == (30.0, "%", (Code(LOINC, "4544-3"),))
    assert (fact.reference_low, fact.reference_high, fact.abnormal, fact.order_id) == (None, None, None, None)


@pytest.mark.parametrize("status", ["final", "amended", "corrected"])
def test_a_final_or_corrected_result_counts(lab, dropped, status):
    assert lab(status=status) is not None
    assert dropped == {}


@pytest.mark.parametrize(
    "status", ["registered", "preliminary", "cancelled", "entered-in-error", "unknown", "FINAL", "", None]
)
def test_a_result_that_is_not_final_is_dropped_and_counted(lab, dropped, status):
    assert lab(status=status) is None
    assert dropped == {"labs.status_not_final": 1}


def test_a_result_without_a_release_time_is_dropped_and_counted(lab, dropped):
    assert lab(issued=None) is None
    assert dropped == {"labs.no_release_time": 1}


@pytest.mark.parametrize("absent", ["effectiveDateTime", "id"])
def test_a_result_without_a_specimen_time_or_an_id_is_dropped_and_counted(lab, dropped, absent):
    assert lab(**{absent: None}) is None
    assert dropped == {"labs.no_id_or_specimen_time": 1}


def test_a_result_dated_without_offset_is_read_in_the_sites_zone(lab):
    fact = lab(effectiveDateTime="2015-01-06T18:55:00", issued="2015-01-06T19:55:00")
    assert fact.at == datetime(2015, 1, 6, 13, 10, tzinfo=UTC)
    assert fact.known_at == datetime(2015, 1, 6, 14, 10, tzinfo=UTC)


def test_a_specimen_dated_by_day_is_taken_at_its_start_and_a_release_dated_by_day_is_known_at_its_end(lab):
    fact = lab(effectiveDateTime="2015-01-06", issued="2015-01-06")
    # Midnight in Kathmandu is 18:15 of the day before in UTC.
    assert fact.at == datetime(2015, 1, 5, 18, 15, tzinfo=UTC)
    assert fact.known_at == datetime(2015, 1, 6, 18, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2015-02-30", "yesterday", "2015-01-06T25:00:00Z", "06.01.2015", ""])
@pytest.mark.parametrize("field", ["effectiveDateTime", "issued"])
def test_a_date_that_is_none_is_an_error_and_not_a_missing_result(lab, field, text):
    with pytest.raises(ValueError):
        lab(**{field: text})


@pytest.mark.parametrize("comparator", ["<", "<=", ">=", ">", "ad"])
def test_a_value_with_a_comparator_is_a_result_without_a_number(lab, comparator):
    fact = lab(valueQuantity={"value": 5, "comparator": comparator, "unit": "%"})
    assert (fact.value, fact.unit) == (None, "%")


def test_a_result_without_a_quantity_is_a_result_without_a_number(lab):
    fact = lab(valueQuantity=None, valueString="clotted")
    assert (fact.value, fact.unit) == (None, "")


@pytest.mark.parametrize("text", ["5.1", "5.1 (hemolyzed)", "<5", "NaN", "see 5.1 above", ""])
def test_a_number_in_a_text_is_no_number_and_is_counted(lab, dropped, text):
    assert lab(valueQuantity=None, valueString=text).value is None
    assert lab(valueQuantity={"value": text, "unit": "%"}).value is None
    assert dropped == {"labs.value_is_text": 2}


@pytest.mark.parametrize(
    "effective",
    [
        {"effectivePeriod": {"start": "2015-01-06T18:55:00Z", "end": "2015-01-06T23:00:00Z"}},
        {"effectivePeriod": {"start": "2015-01-06T18:55:00Z"}},
        {"effectiveInstant": "2015-01-06T18:55:00Z"},
    ],
)
def test_a_specimen_collected_over_a_time_is_dated_by_its_start(lab, effective):
    assert lab(effectiveDateTime=None, **effective).at == datetime(2015, 1, 6, 18, 55, tzinfo=UTC)


@pytest.mark.parametrize("effective", [{}, {"effectivePeriod": {}}, {"effectivePeriod": {"end": "2015-01-06"}}])
def test_a_result_that_says_only_when_it_was_issued_is_dropped_and_counted(lab, dropped, effective):
    assert lab(effectiveDateTime=None, **effective) is None
    assert dropped == {"labs.no_id_or_specimen_time": 1}


def test_the_largest_offset_there_is_is_read(lab):
    assert lab(effectiveDateTime="2015-01-07T08:55:00+14:00").at == datetime(2015, 1, 6, 18, 55, tzinfo=UTC)


LATEST = datetime(2015, 1, 6, 19, 55, tzinfo=UTC)


def test_a_result_dated_at_the_latest_instant_counts_and_one_second_later_does_not(lab, dropped):
    assert lab(latest=LATEST) is not None
    assert lab(latest=LATEST - timedelta(seconds=1)) is None
    assert dropped == {"labs.in_the_future": 1}


@pytest.mark.parametrize("field", ["effectiveDateTime", "issued"])
def test_a_result_from_the_future_is_dropped_and_counted_whichever_date_says_so(lab, dropped, field):
    assert lab(latest=LATEST, **{field: "2015-01-06T20:00:00Z"}) is None
    assert dropped == {"labs.in_the_future": 1}


def test_a_result_of_today_without_a_time_of_day_is_not_from_the_future(lab, dropped):
    # The day ends in Kathmandu at 18:15 UTC of the 7th at the latest, but it began before.
    assert lab(latest=LATEST, effectiveDateTime="2015-01-06", issued="2015-01-07") is not None
    assert dropped == {}


def test_every_other_kind_of_fact_from_the_future_is_dropped_and_counted(
    condition, medication_request, procedure, encounter, service_request, vital_sign, fhir_base, dropped
):
    future = "2015-01-06T19:55:01Z"
    common = {"zone": UTC, "dropped": dropped, "latest": LATEST}
    read.diagnosis(decoded(condition(recordedDate=future), wire.Condition), **common)
    read.medication(decoded(medication_request(authoredOn=future), wire.MedicationRequest), **common)
    read.procedure(decoded(procedure(performedPeriod={"start": future}), wire.Procedure), **common)
    read.visit(decoded(encounter(period={"start": future}), wire.Encounter), **common)
    read.signed_order(decoded(service_request(authoredOn=future), wire.ServiceRequest), fhir_base=fhir_base, **common)
    read.vitals(decoded(vital_sign(effectiveDateTime=future), wire.Observation), **common)
    kinds = ("diagnoses", "medications", "procedures", "visits", "orders", "vitals")
    assert dropped == {f"{kind}.in_the_future": 1 for kind in kinds}


def test_a_result_without_a_code_is_a_fact_that_is_counted(lab, dropped):
    assert lab(code={"text": "Hematocrit"}).codes == ()
    assert lab(code={"coding": []}).codes == ()
    assert lab(code={"coding": [{"system": "urn:local", "code": "HCT"}]}).codes == (Code("urn:local", "HCT"),)
    assert dropped == {"labs.unmapped_code": 2}


def test_two_loincs_on_one_result_both_count(lab):
    codings = [{"system": "http://loinc.org", "code": code} for code in ("4544-3", "20570-8")]
    assert lab(code={"coding": codings}).codes == (Code(LOINC, "4544-3"), Code(LOINC, "20570-8"))


def ranged(code=None, low=35, **concept):
    kind = {"type": {"coding": [{"code": code}]} if code else concept} if code or concept else {}
    return {"low": {"value": low, "unit": "%"}, **kind}


@pytest.mark.parametrize(
    ("ranges", "low"),
    [
        ([ranged("normal")], 35.0),
        ([ranged("therapeutic")], None),
        ([ranged(text="normal")], None),
        ([ranged("treatment", 20), ranged("normal", 35)], 35.0),
        ([ranged("treatment", 20), ranged()], 35.0),
        ([ranged("normal"), ranged()], None),
    ],
    ids=["normal", "therapeutic", "only text", "normal and target", "untyped and target", "two normal ones"],
)
def test_only_the_normal_range_counts_as_the_reference_range(lab, ranges, low):
    assert lab(referenceRange=ranges).reference_low == low


def test_a_bound_that_is_text_is_no_bound(lab):
    assert lab(referenceRange=[{"low": {"value": "35", "unit": "%"}}]).reference_low is None


def test_a_result_with_an_absent_value_is_a_result_without_a_number(lab):
    assert lab(valueQuantity={"unit": "%"}).value is None


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        ({"unit": "percent", "system": "http://unitsofmeasure.org", "code": "%"}, "%"),
        ({"unit": "percent", "system": "urn:local", "code": "PCT"}, "percent"),
        ({"unit": "percent", "code": "%"}, "percent"),
        ({"code": "PCT"}, "PCT"),
        ({"system": "http://unitsofmeasure.org"}, ""),
        ({}, ""),
    ],
)
def test_the_unit_is_the_ucum_code_else_the_printed_unit_else_any_code(lab, quantity, unit):
    assert lab(valueQuantity={"value": 30, **quantity}).unit == unit


def test_each_of_several_codings_counts_once_and_one_without_system_or_code_not_at_all(lab):
    loinc = {"system": "http://loinc.org", "code": "4544-3"}
    local = {"system": "urn:local", "code": "HCT"}
    codings = [local, loinc, loinc, {"code": "718-7"}, {"system": "http://loinc.org"}, {"display": "Hematocrit"}]
    assert lab(code={"coding": codings}).codes == (Code("urn:local", "HCT"), Code(LOINC, "4544-3"))


@pytest.mark.parametrize("code", [{"text": "Hematocrit"}, {"coding": []}, None])
def test_a_code_that_is_only_text_is_no_code(lab, code):
    assert lab(code=code).codes == ()


@pytest.mark.parametrize(
    ("flags", "abnormal"),
    [
        (["H"], True),
        (["L"], True),
        (["HH"], True),
        (["LL"], True),
        (["A"], True),
        (["AA"], True),
        ([">"], True),
        (["N"], False),
        (["N", "H"], True),
        (["IND"], None),
        (["normal"], None),
        ([], None),
    ],
)
def test_the_laboratorys_flag_says_whether_the_result_is_abnormal(lab, flags, abnormal):
    concepts = [{"coding": [{"code": flag}]} for flag in flags]
    assert lab(interpretation=concepts).abnormal is abnormal


def test_a_flag_that_is_only_text_says_nothing(lab):
    assert lab(interpretation=[{"text": "High"}]).abnormal is None


def quantity(value, unit="%", **elements):
    return {"value": value, "unit": unit, **elements}


@pytest.mark.parametrize(
    ("ranges", "bounds"),
    [
        ([{"low": quantity(35), "high": quantity(47)}], (35.0, 47.0)),
        ([{"low": quantity(35)}], (35.0, None)),
        ([{"high": quantity(47)}], (None, 47.0)),
        ([{"low": {"value": 35}, "high": {"value": 47}}], (35.0, 47.0)),
        ([{"low": quantity(0.35, "L/L"), "high": quantity(0.47, "L/L")}], (None, None)),
        ([{"low": quantity(35, "L/L"), "high": quantity(47)}], (None, 47.0)),
        ([{"low": quantity(35, comparator=">"), "high": quantity(47)}], (None, 47.0)),
        ([{"text": "35 - 47"}], (None, None)),
        ([{"low": quantity(35)}, {"low": quantity(30)}], (None, None)),
        ([], (None, None)),
    ],
    ids=["both", "low", "high", "no unit", "other unit", "one other unit", "comparator", "text", "two ranges", "none"],
)
def test_the_reference_range_is_the_only_one_there_is_in_the_results_own_unit(lab, ranges, bounds):
    fact = lab(referenceRange=ranges)
    assert (fact.reference_low, fact.reference_high) == bounds


@pytest.mark.parametrize(
    ("references", "order_id"),
    [
        (["ServiceRequest/o1"], "o1"),
        (["ServiceRequest/o1/_history/3"], "o1"),
        (["https://emr.example/api/FHIR/R4/ServiceRequest/o1"], "o1"),
        (["ServiceRequest/o1", "ServiceRequest/o1"], "o1"),
        (["CarePlan/c1", "ServiceRequest/o1"], "o1"),
        (["ServiceRequest/o1", "ServiceRequest/o2"], None),
        (["https://other.example/fhir/ServiceRequest/o1"], None),
        (["urn:uuid:1"], None),
        (["o1"], None),
    ],
)
def test_a_result_answers_the_one_order_of_this_server_that_it_is_based_on(lab, references, order_id):
    assert lab(basedOn=[{"reference": reference} for reference in references]).order_id == order_id


def test_a_result_based_on_an_identifier_alone_is_linked_to_no_order(lab):
    assert lab(basedOn=[{"identifier": {"value": "o1"}}]).order_id is None


# -- whom it is about


@pytest.mark.parametrize(
    ("subject", "patient_id"),
    [
        ({"reference": "Patient/p1"}, "p1"),
        ({"reference": "Patient/p1/_history/7"}, "p1"),
        ({"reference": "https://emr.example/api/FHIR/R4/Patient/p1"}, "p1"),
        ({"reference": "https://emr.example/api/FHIR/R4/Patient/p1/_history/7"}, "p1"),
        (None, None),
        ({"identifier": {"value": "p1"}}, None),
        ({"display": "p1"}, None),
        ({"reference": "#p1"}, None),
    ],
)
def test_the_subject_is_this_servers_patient_or_nobody(observation, fhir_base, subject, patient_id):
    resource = decoded(observation(subject=subject), wire.Observation)
    assert read.subject_of(resource, fhir_base=fhir_base) == patient_id


@pytest.mark.parametrize(
    "reference",
    [
        "p1",
        "/Patient/p1",
        "Group/p1",
        "patient/p1",
        "Patient/p1/",
        "Patient/p1/extra",
        "Patient/p1?x=1",
        "urn:uuid:p1",
        "https://other.example/api/FHIR/R4/Patient/p1",
        "https://emr.example.other.example/api/FHIR/R4/Patient/p1",
        "http://emr.example/api/FHIR/R4/Patient/p1",
        "https://emr.example/api/FHIR/R4/other/Patient/p1",
        "",
    ],
)
def test_a_reference_that_is_not_this_servers_patient_equals_nobodys_id(observation, fhir_base, reference):
    resource = decoded(observation(subject={"reference": reference}), wire.Observation)
    found = read.subject_of(resource, fhir_base=fhir_base)
    assert found is not None
    assert not FHIR_ID.match(found)


# -- diagnoses


def test_a_diagnosis_counts_from_when_it_was_recorded(diagnosis):
    fact = diagnosis(onsetDateTime="2001-01-01")
    assert fact.at == fact.known_at == datetime(2015, 1, 5, 10, tzinfo=UTC)
    assert (fact.recorded_in, fact.codes) == (DiagnosisList.PROBLEM_LIST, (Code(ICD10CM, "D50.9"),))


def test_a_diagnosis_recorded_on_a_day_is_known_at_the_end_of_that_day_in_the_sites_zone(diagnosis):
    fact = diagnosis(recordedDate="2015-01-05")
    assert fact.at == datetime(2015, 1, 4, 18, 15, tzinfo=UTC)
    assert fact.known_at == datetime(2015, 1, 5, 18, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at", "known_at"),
    [
        ("2015", datetime(2014, 12, 31, 18, 15, tzinfo=UTC), datetime(2015, 12, 31, 18, 15, tzinfo=UTC)),
        ("2014-12", datetime(2014, 11, 30, 18, 15, tzinfo=UTC), datetime(2014, 12, 31, 18, 15, tzinfo=UTC)),
    ],
)
def test_a_month_or_a_year_is_known_at_its_end(diagnosis, text, at, known_at):
    fact = diagnosis(recordedDate=text)
    assert (fact.at, fact.known_at) == (at, known_at)


@pytest.mark.parametrize("status", ["refuted", "entered-in-error"])
def test_a_diagnosis_that_is_not_so_is_dropped_and_counted(diagnosis, dropped, status):
    assert diagnosis(verificationStatus={"coding": [{"code": status}]}) is None
    assert dropped == {"diagnoses.not_so": 1}


@pytest.mark.parametrize("status", ["confirmed", "provisional", "differential", "unconfirmed"])
def test_a_diagnosis_that_may_be_so_counts(diagnosis, status):
    assert diagnosis(verificationStatus={"coding": [{"code": status}]}) is not None


@pytest.mark.parametrize(
    "category",
    [
        [],
        [{"text": "problem-list-item"}],
        [{"coding": [{"code": "health-concern"}]}],
        [{"coding": [{"code": "problem-list-item"}]}, {"coding": [{"code": "encounter-diagnosis"}]}],
    ],
    ids=["none", "text", "other", "both"],
)
def test_a_diagnosis_on_no_single_list_is_dropped_and_counted(diagnosis, dropped, category):
    assert diagnosis(category=category) is None
    assert dropped == {"diagnoses.no_single_list": 1}


def test_a_diagnosis_of_an_encounter_is_on_that_list(diagnosis):
    category = [{"coding": [{"code": "us-core"}, {"code": "encounter-diagnosis"}]}]
    assert diagnosis(category=category).recorded_in is DiagnosisList.ENCOUNTER


def test_a_diagnosis_without_a_recorded_date_is_dropped_and_counted(diagnosis, dropped):
    assert diagnosis(recordedDate=None, onsetDateTime="2001-01-01") is None
    assert dropped == {"diagnoses.no_recorded_date": 1}


def test_a_diagnosis_in_two_coding_systems_has_both_codes(diagnosis):
    codings = [{"system": ICD10CM, "code": "D50.9"}, {"system": SNOMED, "code": "87522002"}]
    assert diagnosis(code={"coding": codings}).codes == (Code(ICD10CM, "D50.9"), Code(SNOMED, "87522002"))


# -- medications


@pytest.mark.parametrize("status", ["cancelled", "draft", "entered-in-error"])
def test_a_medication_that_was_never_ordered_is_dropped_and_counted(medication, dropped, status):
    assert medication(status=status) is None
    assert dropped == {"medications.not_so": 1}


@pytest.mark.parametrize("status", ["active", "completed", "stopped", "on-hold", "unknown"])
def test_a_medication_that_was_ordered_counts_whatever_became_of_it(medication, status):
    assert medication(status=status).at == datetime(2015, 1, 5, 10, tzinfo=UTC)


def test_a_medication_ordered_on_a_day_is_known_at_its_end(medication):
    fact = medication(authoredOn="2015-01-05")
    assert (fact.at, fact.known_at) == (
        datetime(2015, 1, 4, 18, 15, tzinfo=UTC),
        datetime(2015, 1, 5, 18, 15, tzinfo=UTC),
    )


def test_a_medication_without_an_order_time_is_dropped_and_counted(medication, dropped):
    assert medication(authoredOn=None) is None
    assert dropped == {"medications.no_order_time": 1}


def test_a_medication_that_is_only_a_reference_has_no_code(medication):
    reference = {"reference": "https://other.example/Medication/1"}
    assert medication(medicationCodeableConcept=None, medicationReference=reference).codes == ()


# -- who the patient is


@pytest.mark.parametrize(
    ("text", "birth_date"),
    [
        ("1950-03-04", BirthDate(year=1950, month=3, day=4)),
        ("1950-03", BirthDate(year=1950, month=3)),
        ("1950", BirthDate(year=1950)),
        ("1952-02-29", BirthDate(year=1952, month=2, day=29)),
        (None, None),
        ("", None),
        ("1951-02-29", None),
        ("1950-13", None),
        ("0000", None),
        ("50", None),
        ("50-03-04", None),
        ("1950-3-4", None),
        ("19_0-03-04", None),
        ("1950-03-04T00:00:00Z", None),
        ("04/03/1950", None),
        ("١٩٥٠", None),
    ],
)
def test_a_birth_date_is_as_precise_as_it_was_sent_and_unknown_if_it_is_no_date(patient, text, birth_date):
    assert read.demographics(decoded(patient(birthDate=text), wire.Patient)).birth_date == birth_date


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("female", Sex.FEMALE),
        ("male", Sex.MALE),
        ("other", Sex.OTHER),
        ("unknown", Sex.UNKNOWN),
        ("F", Sex.UNKNOWN),
        (None, Sex.UNKNOWN),
    ],
)
def test_a_gender_that_fhir_does_not_know_is_unknown(patient, text, sex):
    assert read.demographics(decoded(patient(gender=text), wire.Patient)).sex is sex


def us_core(name, *parts):
    url = f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}"
    return {"url": url, "extension": list(parts)}


def category(code, *, system=OMB_RACE_ETHNICITY, url="ombCategory"):
    return {"url": url, "valueCoding": {"system": system, "code": code}}


def test_races_and_ethnicity_are_their_omb_categories(patient):
    extension = [
        us_core("race", category("2106-3"), category("1002-5"), category("1010-8", url="detailed"), {"url": "text"}),
        us_core("ethnicity", category("2186-5"), category("X", system="urn:local")),
        {"url": "urn:something-else", "valueString": "x"},
    ]
    who = read.demographics(decoded(patient(extension=extension), wire.Patient))
    assert who.races == (Code(OMB_RACE_ETHNICITY, "2106-3"), Code(OMB_RACE_ETHNICITY, "1002-5"))
    assert who.ethnicities == (Code(OMB_RACE_ETHNICITY, "2186-5"),)


def test_who_does_not_say_has_no_race(patient):
    who = read.demographics(decoded(patient(), wire.Patient))
    assert (who.races, who.ethnicities) == ((), ())


def _speaks(code, preferred=None, *, system="urn:ietf:bcp:47"):
    said = {"language": {"coding": [{"system": system, "code": code}]}}
    return said if preferred is None else {**said, "preferred": preferred}


@pytest.mark.parametrize(
    ("communication", "language"),
    [
        ([_speaks("es-MX", preferred=True)], "es"),
        ([_speaks("es")], "es"),
        ([_speaks("en", preferred=False), _speaks("es", preferred=True)], "es"),
        ([_speaks("en-US", preferred=True), _speaks("en-GB", preferred=True)], "en"),
        ([_speaks("en", preferred=True), _speaks("es", preferred=True)], None),
        ([_speaks("en"), _speaks("es")], None),
        ([_speaks("spa", system="urn:oid:2.16.840.1.113883.6.99")], None),
        ([{"language": {"text": "Spanish"}, "preferred": True}], None),
        ([], None),
    ],
)
def test_the_language_is_the_one_that_is_preferred_or_the_only_one(patient, communication, language):
    assert preferred_language(decoded(patient(communication=communication), wire.Patient)) == language


# -- encounters and orders


@pytest.mark.parametrize(
    ("identifiers", "csn_system", "csn"),
    [
        ([{"system": "urn:csn", "value": "42"}], "urn:csn", "42"),
        ([{"system": "urn:csn", "value": "42"}, {"system": "urn:har", "value": "7"}], "urn:csn", "42"),
        ([{"system": "urn:csn", "value": "42"}, {"system": "urn:csn", "value": "42"}], "urn:csn", "42"),
        ([{"system": "urn:csn", "value": "42"}, {"system": "urn:csn", "value": "43"}], "urn:csn", None),
        ([{"system": "urn:csn"}], "urn:csn", None),
        ([{"type": {"text": "CSN"}, "value": "42"}], "urn:csn", None),
        ([{"type": {"text": "CSN"}, "value": "42"}], None, "42"),
        ([{"type": {"text": "HAR"}, "value": "42"}], None, None),
        ([{"value": "42"}], None, None),
        ([], None, None),
    ],
)
def test_the_contact_serial_number_is_the_only_one_of_its_system_or_type(encounter, identifiers, csn_system, csn):
    resource = decoded(encounter(identifier=identifiers), wire.Encounter)
    fact = read.encounter(resource, csn_system=csn_system, zone=KATHMANDU)
    assert fact.contact_serial_number == csn


def test_an_encounter_is_open_until_it_has_an_end(encounter):
    fact = read.encounter(decoded(encounter(), wire.Encounter), csn_system=None, zone=KATHMANDU)
    assert (fact.start, fact.end) == (datetime(2015, 1, 6, 10, tzinfo=UTC), None)
    without = read.encounter(decoded(encounter(period=None), wire.Encounter), csn_system=None, zone=KATHMANDU)
    assert (without.start, without.end) == (None, None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", OrderStatus.OPEN),
        ("on-hold", OrderStatus.OPEN),
        ("unknown", OrderStatus.OPEN),
        (None, OrderStatus.OPEN),
        ("completed", OrderStatus.DONE),
        ("revoked", OrderStatus.CANCELLED),
        ("entered-in-error", OrderStatus.CANCELLED),
    ],
)
def test_an_order_is_open_until_it_is_completed_or_revoked(service_request, fhir_base, status, expected):
    resource = decoded(service_request(status=status), wire.ServiceRequest)
    assert read.order(resource, fhir_base=fhir_base, zone=KATHMANDU).status is expected


def test_an_order_names_its_encounter_and_when_it_was_signed(service_request, fhir_base):
    fact = read.order(decoded(service_request(), wire.ServiceRequest), fhir_base=fhir_base, zone=KATHMANDU)
    assert (fact.fact_id, fact.encounter_id) == ("o1", "e1")
    assert fact.at == fact.known_at == datetime(2015, 1, 6, 20, 55, tzinfo=UTC)


@pytest.mark.parametrize("absent", ["authoredOn", "id"])
def test_an_order_without_a_time_or_an_id_is_none(service_request, fhir_base, absent):
    resource = decoded(service_request(**{absent: None}), wire.ServiceRequest)
    assert read.order(resource, fhir_base=fhir_base, zone=KATHMANDU) is None


# -- vital signs


@pytest.fixture
def vitals(dropped):
    """Give a function that reads a vital sign."""

    def run(resource):
        return read.vitals(decoded(resource, wire.Observation), zone=KATHMANDU, dropped=dropped)

    return run


def test_a_measurement_is_dated_by_when_it_was_taken_and_known_from_when_it_was_filed(vitals, vital_sign):
    (fact,) = vitals(vital_sign())
    assert (fact.fact_id, fact.codes, fact.value, fact.unit) == ("v1", (Code(LOINC, "8867-4"),), 80.0, "/min")
    assert fact.at == datetime(2015, 1, 6, 18, 55, tzinfo=UTC)
    assert fact.known_at == datetime(2015, 1, 6, 18, 57, tzinfo=UTC)


def test_a_measurement_that_does_not_say_when_it_was_filed_is_known_when_it_was_taken(vitals, vital_sign):
    (fact,) = vitals(vital_sign(issued=None))
    assert fact.known_at == fact.at == datetime(2015, 1, 6, 18, 55, tzinfo=UTC)
    (of_a_day,) = vitals(vital_sign(issued=None, effectiveDateTime="2015-01-06"))
    assert of_a_day.known_at - of_a_day.at == timedelta(days=1)


def test_each_component_of_a_blood_pressure_is_a_fact_with_an_id_of_its_own(vitals, blood_pressure):
    facts = vitals(blood_pressure())
    assert [(fact.fact_id, fact.codes, fact.value, fact.unit) for fact in facts] == [
        ("bp1#8480-6", (Code(LOINC, "8480-6"),), 120.0, "mm[Hg]"),
        ("bp1#8462-4", (Code(LOINC, "8462-4"),), 70.0, "mm[Hg]"),
    ]
    assert {fact.at for fact in facts} == {datetime(2015, 1, 6, 18, 55, tzinfo=UTC)}


def test_a_measurement_with_a_value_and_components_is_all_of_them(vitals, blood_pressure):
    facts = vitals(blood_pressure(valueQuantity={"value": 87, "unit": "mm[Hg]"}))
    assert [fact.fact_id for fact in facts] == ["bp1", "bp1#8480-6", "bp1#8462-4"]


def test_the_same_component_twice_gets_two_ids_and_one_without_a_code_is_counted(vitals, blood_pressure, dropped):
    twice = blood_pressure()["component"][:1] * 2
    facts = vitals(blood_pressure(component=[*twice, {"valueQuantity": {"value": 1}}]))
    assert len({fact.fact_id for fact in facts}) == len(facts) == 2
    assert dropped == {"vitals.component_without_code": 1}


def test_a_measurement_without_any_value_is_one_without_a_number(vitals, vital_sign):
    (fact,) = vitals(vital_sign(valueQuantity=None))
    assert (fact.value, fact.unit) == (None, "")


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"status": "preliminary"}, "vitals.status_not_final"),
        ({"status": "entered-in-error"}, "vitals.status_not_final"),
        ({"effectiveDateTime": None}, "vitals.no_id_or_time"),
        ({"id": None}, "vitals.no_id_or_time"),
    ],
)
def test_a_measurement_that_cannot_be_used_is_counted(vitals, vital_sign, dropped, elements, reason):
    assert vitals(vital_sign(**elements)) == ()
    assert dropped == {reason: 1}


# -- procedures


@pytest.fixture
def done(dropped):
    """Give a function that reads a procedure."""

    def run(resource):
        return read.procedure(decoded(resource, wire.Procedure), zone=KATHMANDU, dropped=dropped)

    return run


def test_a_procedure_counts_from_when_it_began(done, procedure):
    fact = done(procedure())
    assert (fact.fact_id, fact.codes) == ("pr1", (Code(SNOMED, "80146002"),))
    assert fact.at == fact.known_at == datetime(2015, 1, 5, 8, tzinfo=UTC)


def test_a_procedure_may_be_dated_by_an_instant_or_a_day(done, procedure):
    at_once = done(procedure(performedPeriod=None, performedDateTime="2015-01-05T08:00:00+05:45"))
    assert at_once.at == at_once.known_at == datetime(2015, 1, 5, 2, 15, tzinfo=UTC)
    some_day = done(procedure(performedPeriod=None, performedDateTime="2015-01-05"))
    assert (some_day.at, some_day.known_at) == (
        datetime(2015, 1, 4, 18, 15, tzinfo=UTC),
        datetime(2015, 1, 5, 18, 15, tzinfo=UTC),
    )


def test_a_procedure_that_is_underway_counts(done, procedure):
    assert done(procedure(status="in-progress", performedPeriod={"start": "2015-01-05T08:00:00Z"})) is not None


@pytest.mark.parametrize(
    "status", ["preparation", "not-done", "on-hold", "stopped", "entered-in-error", "unknown", None]
)
def test_a_procedure_that_was_not_done_is_dropped_and_counted(done, procedure, dropped, status):
    assert done(procedure(status=status)) is None
    assert dropped == {"procedures.not_done": 1}


@pytest.mark.parametrize("elements", [{"performedPeriod": None}, {"performedPeriod": {}}, {"id": None}])
def test_a_procedure_without_a_time_or_an_id_is_dropped_and_counted(done, procedure, dropped, elements):
    assert done(procedure(**elements)) is None
    assert dropped == {"procedures.no_time": 1}


# -- orders and visits of the past


@pytest.fixture
def signed(dropped, fhir_base):
    """Give a function that reads an order of the past."""

    def run(resource):
        resource = decoded(resource, wire.ServiceRequest)
        return read.signed_order(resource, fhir_base=fhir_base, zone=KATHMANDU, dropped=dropped)

    return run


@pytest.mark.parametrize("status", ["active", "on-hold", "revoked", "completed", "unknown", None])
def test_an_order_that_was_signed_counts_whatever_became_of_it(signed, service_request, dropped, status):
    assert signed(service_request(status=status)).at == datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
    assert dropped == {}


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"status": "draft"}, "orders.not_so"),
        ({"status": "entered-in-error"}, "orders.not_so"),
        ({"authoredOn": None}, "orders.no_order_time"),
    ],
)
def test_an_order_that_was_not_signed_is_dropped_and_counted(signed, service_request, dropped, elements, reason):
    assert signed(service_request(**elements)) is None
    assert dropped == {reason: 1}


@pytest.fixture
def visited(dropped):
    """Give a function that reads an encounter of the past."""

    def run(resource):
        return read.visit(decoded(resource, wire.Encounter), zone=KATHMANDU, dropped=dropped)

    return run


ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


@pytest.mark.parametrize("status", ["arrived", "triaged", "in-progress", "onleave", "finished", "unknown", None])
def test_a_visit_counts_from_its_start_by_its_class(visited, encounter, status):
    fact = visited(encounter(**{"class": {"system": ACT, "code": "IMP"}, "status": status}))
    assert (fact.fact_id, fact.codes) == ("e1", (Code(ACT, "IMP"),))
    assert fact.at == fact.known_at == datetime(2015, 1, 6, 10, tzinfo=UTC)


@pytest.mark.parametrize("status", ["planned", "cancelled", "entered-in-error"])
def test_a_visit_that_did_not_happen_is_dropped_and_counted(visited, encounter, dropped, status):
    assert visited(encounter(status=status)) is None
    assert dropped == {"visits.not_so": 1}


@pytest.mark.parametrize("period", [None, {}, {"end": "2015-01-06T10:00:00Z"}])
def test_a_visit_without_a_start_is_dropped_and_counted(visited, encounter, dropped, period):
    assert visited(encounter(period=period)) is None
    assert dropped == {"visits.no_start": 1}


def test_a_visit_without_a_class_has_no_code(visited, encounter):
    assert visited(encounter(**{"class": None})).codes == ()


# -- what an order of medication refers to


RX = "http://www.nlm.nih.gov/research/umls/rxnorm"
IRON = {"coding": [{"system": RX, "code": "310325"}]}


def test_a_medication_that_the_order_refers_to_is_read_from_what_was_looked_up(medication, dropped):
    held = {"Medication/m": decoded({"resourceType": "Medication", "id": "m", "code": IRON}, wire.Medication)}
    referring = {"medicationCodeableConcept": None, "medicationReference": {"reference": "Medication/m"}}
    assert medication(medications=held, **referring).codes == (Code(RX, "310325"),)
    assert dropped == {}


def test_a_contained_medication_is_read_from_the_order_itself(medication, dropped):
    contained = [
        {"resourceType": "Organization", "id": "m", "code": "x"},
        {"resourceType": "PractitionerRole", "id": "r", "code": [IRON]},
        {"resourceType": "Medication", "id": "m", "code": IRON},
    ]
    referring = {"medicationCodeableConcept": None, "medicationReference": {"reference": "#m"}, "contained": contained}
    assert medication(**referring).codes == (Code(RX, "310325"),)
    assert dropped == {}


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Medication/other"},
        {"reference": "https://other.example/fhir/Medication/m"},
        {"reference": "#m"},
        {"identifier": {"value": "m"}},
        None,
    ],
)
def test_an_order_of_what_cannot_be_looked_up_is_a_fact_without_a_code_and_counted(medication, dropped, reference):
    fact = medication(medicationCodeableConcept=None, medicationReference=reference)
    assert (fact.fact_id, fact.codes) == ("m1", ())
    assert dropped == {"medications.not_resolved": 1}


# -- odd birth dates


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("2015-01-08", False),
        ("2015-01-07", True),
        ("2015-01", True),
        ("2016", False),
        ("1884-01-05", False),
        ("1884-01-07", True),
        ("1850", False),
        ("9999-12-31", False),
    ],
)
def test_nobody_is_over_130_or_born_later_than_tomorrow(patient, dropped, text, known):
    as_of = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
    who = read.demographics(decoded(patient(birthDate=text), wire.Patient), as_of=as_of, dropped=dropped)
    assert (who.birth_date is not None) is known
    assert dropped == ({} if known else {"demographics.birth_date_impossible": 1})


def test_a_birth_date_that_is_not_given_is_unknown_and_no_fault(patient, dropped):
    who = read.demographics(decoded(patient(birthDate=None), wire.Patient), dropped=dropped)
    assert (who.birth_date, dropped) == (None, {})
