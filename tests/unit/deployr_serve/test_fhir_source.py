"""What is asked of the EMR for one patient, and what of its answers is believed."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone

import msgspec
import pytest

from deployr_core import features
from deployr_core.codes import LOINC, SNOMED, Code
from deployr_core.declared import Analyte, EdgeBins, FixedCodes, Statistic
from deployr_core.features import FeatureSpec, SexGroup
from deployr_core.packet import Subject
from deployr_core.vectorize import vectorize
from deployr_serve.adapters import fhir_plan
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import Response
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrUnreachable,
    ModelUnavailable,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from tests.fake_emr import FakeEmr

ABOUT_ORDER = Subject(patient_id="p1", encounter_id="e1", order_id="o1")
ONLY_SEX = FeatureSpec(schema_version=1, groups=(SexGroup(),))


# -- what is asked


def test_what_is_asked_follows_from_the_declaration(feature_spec, now):
    searches = plan(feature_spec, patient_id="p1", as_of=now)
    assert {name: (search.resource_type, search.parameters) for name, search in searches.items()} == {
        "labs": (
            "Observation",
            (
                ("patient", "p1"),
                ("category", "laboratory"),
                ("code", "http://loinc.org|4544-3"),
                ("date", "ge2014-12-07T20:55:00Z"),  # 30 days
            ),
        ),
        "diagnoses": (
            "Condition",
            (
                ("patient", "p1"),
                ("category", "problem-list-item"),
                ("recorded-date", "ge2014-01-06T20:55:00Z"),  # 365 days
            ),
        ),
        "medications": (
            "MedicationRequest",
            (
                ("patient", "p1"),
                ("authoredon", "ge2014-10-08T20:55:00Z"),  # 90 days
                ("_include", "MedicationRequest:medication"),
            ),
        ),
    }


def test_a_declaration_of_demographics_alone_asks_for_no_facts(now):
    assert plan(ONLY_SEX, patient_id="p1", as_of=now) == {}


def test_groups_of_one_kind_share_one_search_over_the_longest_window_and_all_codes(feature_spec, now):
    labs = feature_spec.groups[1]
    analyte = msgspec.structs.replace(labs.analytes[0], code="718-7", name="hemoglobin", unit="g/dL")
    more = msgspec.structs.replace(labs, name="more_labs", analytes=(labs.analytes[0], analyte), lookback_days=31)
    spec = FeatureSpec(schema_version=1, groups=(labs, more))
    searches = plan(spec, patient_id="p1", as_of=now)
    assert list(searches) == ["labs"]
    assert searches["labs"].parameters[2:] == (
        ("code", "http://loinc.org|4544-3,http://loinc.org|718-7"),
        ("date", "ge2014-12-06T20:55:00Z"),
    )


def test_the_window_is_asked_for_from_the_minute_before_its_start_in_utc(feature_spec):
    as_of = datetime(2015, 1, 7, 2, 40, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert plan(feature_spec, patient_id="p1", as_of=as_of)["labs"].parameters[3] == ("date", "ge2014-12-07T20:55:00Z")


# -- every kind of group


ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def coded(kind, name, code, **more):
    return kind(name=name, systems=(code.system,), codes=FixedCodes(codes=(code,)), lookback_days=30, **more)


def measured(kind, name, *codes):
    analytes = tuple(Analyte(system=LOINC, code=code, name=code, unit=unit) for code, unit in codes)
    return kind(name=name, analytes=analytes, statistics=(Statistic.LAST,), lookback_days=30)


ONE_OF_EACH_KIND = (
    features.AgeGroup(bins=EdgeBins(edges=(18,))),
    features.SexGroup(),
    features.RaceGroup(categories=("2106-3",)),
    features.EthnicityGroup(categories=("2186-5",)),
    measured(features.LabGroup, "labs", ("4544-3", "%")),
    measured(features.VitalGroup, "vitals", ("8867-4", "/min"), ("8480-6", "mm[Hg]"), ("8462-4", "mm[Hg]")),
    coded(
        features.DiagnosisGroup,
        "problem_list",
        Code("http://hl7.org/fhir/sid/icd-10-cm", "D50.9"),
        recorded_in=("problem-list-item",),
    ),
    coded(features.MedicationGroup, "drugs", Code("http://www.nlm.nih.gov/research/umls/rxnorm", "310325")),
    coded(features.ProcedureGroup, "procedures", Code(SNOMED, "80146002")),
    coded(features.OrderGroup, "orders", Code(LOINC, "57021-8")),
    coded(features.VisitGroup, "visits", Code(ACT, "EMER")),
)
EVERYTHING = FeatureSpec(schema_version=1, groups=ONE_OF_EACH_KIND)


def test_every_kind_of_group_that_can_be_declared_is_among_those_tested_here():
    assert {type(group) for group in ONE_OF_EACH_KIND} == set(features.Group.__args__)


@pytest.mark.parametrize("group", ONE_OF_EACH_KIND, ids=lambda group: group.name)
def test_every_kind_of_group_is_either_searched_for_or_named_as_unfetchable(now, group):
    spec = FeatureSpec(schema_version=1, groups=(group,))
    on_the_patient = isinstance(group, features.CategoryGroup)
    assert on_the_patient or plan(spec, patient_id="p1", as_of=now) or unfetchable(spec) == (group.name,)


def test_all_that_can_be_declared_today_can_be_fetched():
    assert unfetchable(EVERYTHING) == ()


async def test_a_declaration_that_cannot_be_fetched_is_refused_and_never_scored_as_empty(monkeypatch, fetch, emr_of):
    without_vitals = {name: kind for name, kind in fhir_plan._KINDS.items() if name != "vitals"}
    monkeypatch.setattr(fhir_plan, "_KINDS", without_vitals)
    assert unfetchable(EVERYTHING) == ("vitals",)
    emr = emr_of()
    with pytest.raises(ModelUnavailable, match="vitals"):
        await fetch(emr, spec=EVERYTHING)
    assert emr.asked == []


def test_each_kind_is_asked_for_with_its_own_date_and_codes(now):
    searches = plan(EVERYTHING, patient_id="p1", as_of=now)
    since = "ge2014-12-07T20:55:00Z"  # 30 days
    assert {name: (search.resource_type, search.parameters[1:]) for name, search in searches.items()} == {
        "labs": (
            "Observation",
            (("category", "laboratory"), ("code", "http://loinc.org|4544-3"), ("date", since)),
        ),
        "vitals": (
            "Observation",
            (
                ("category", "vital-signs"),
                # The panels that hold the two pressures as components are asked for beside them.
                ("code", ",".join(f"{LOINC}|{code}" for code in ("8867-4", "8480-6", "8462-4", "85354-9", "55284-4"))),
                ("date", since),
            ),
        ),
        "diagnoses": ("Condition", (("category", "problem-list-item"), ("recorded-date", since))),
        "medications": ("MedicationRequest", (("authoredon", since), ("_include", "MedicationRequest:medication"))),
        "procedures": ("Procedure", (("date", since),)),
        "orders": ("ServiceRequest", (("authored", since),)),
        "visits": ("Encounter", (("date", since),)),
    }
    assert {search.parameters[0] for search in searches.values()} == {("patient", "p1")}


def test_a_test_that_laboratories_report_under_several_codes_is_asked_for_under_all(now):
    hematocrit = Analyte(
        system=LOINC, code="4544-3", name="hematocrit", unit="%", also=(Code(LOINC, "20570-8"), Code("urn:lab", "HCT"))
    )
    labs = features.LabGroup(name="labs", analytes=(hematocrit,), statistics=(Statistic.LAST,), lookback_days=30)
    searches = plan(FeatureSpec(schema_version=1, groups=(labs,)), patient_id="p1", as_of=now)
    assert dict(searches["labs"].parameters)["code"] == f"{LOINC}|4544-3,{LOINC}|20570-8,urn:lab|HCT"


def test_what_a_code_has_in_common_with_the_syntax_of_searches_is_escaped(now):
    group = measured(features.VitalGroup, "vitals", (r"a,b|c$d\e", "1"))
    searches = plan(FeatureSpec(schema_version=1, groups=(group,)), patient_id="p1", as_of=now)
    assert dict(searches["vitals"].parameters)["code"] == rf"{LOINC}|a\,b\|c\$d\\e"


# -- what comes back


@pytest.fixture
def emr_of(page_of, patient, encounter, service_request, observation, condition, medication_request):
    """Give a function that makes an EMR holding one of everything about p1, but for what is given."""

    def make(**held):
        everything = {
            "Patient": [patient()],
            "Encounter": [encounter()],
            "ServiceRequest": [service_request()],
            "Observation": [observation()],
            "Condition": [condition()],
            "MedicationRequest": [medication_request()],
        }
        return FakeEmr(page_of, **{**everything, **held})

    return make


@pytest.fixture
def fetch(client_of, feature_spec, now, clock):
    async def run(emr, subject=ABOUT_ORDER, *, spec=feature_spec, **options):
        return await FhirSource(client_of(emr), clock=clock, **options).fetch(subject, spec, as_of=now)

    return run


async def test_everything_the_declaration_needs_is_fetched(fetch, emr_of, feature_spec, now):
    fetched = await fetch(emr_of())
    facts = fetched.facts
    assert facts.patient_id == "p1"
    assert ([lab.fact_id for lab in facts.labs], [d.fact_id for d in facts.diagnoses]) == (["lab1"], ["c1"])
    assert [medication.fact_id for medication in facts.medications] == ["m1"]
    assert (fetched.encounter.encounter_id, fetched.encounter.contact_serial_number) == ("e1", "42")
    assert fetched.dropped == {}
    # female, 1 result, the last of 30 %, 1 diagnosis, 1 drug
    assert vectorize(facts, feature_spec, now).dense().tolist() == [1.0, 0.0, 1.0, 30.0, 1.0, 1.0]


async def test_the_preferred_language_comes_with_the_patient_and_no_further_call(fetch, emr_of, patient):
    spanish = {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "es-US"}]}, "preferred": True}
    emr = emr_of(Patient=[patient(communication=[spanish])])
    assert (await fetch(emr)).patient_groups.language == "es"
    assert sorted(kind for kind, _ in emr.asked) == [
        *("Condition", "Encounter", "MedicationRequest", "Observation", "Patient", "ServiceRequest")
    ]


async def test_every_kind_of_group_is_fetched_and_read_into_its_features(
    page_of, client_of, now, patient, encounter, service_request, observation, condition, medication_request,
    procedure, vital_sign, blood_pressure,
    clock,
):  # fmt: skip
    def omb(name, code):
        coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": code}
        url = f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}"
        return {"url": url, "extension": [{"url": "ombCategory", "valueCoding": coding}]}

    visit = encounter("e0", **{"class": {"system": ACT, "code": "EMER"}}, period={"start": "2014-12-31T08:00:00Z"})
    held = {
        "Patient": [patient(extension=[omb("race", "2106-3"), omb("ethnicity", "2186-5")])],
        "Condition": [condition()],
        "MedicationRequest": [medication_request()],
        "Procedure": [procedure()],
    }
    by_what_was_asked = {
        ("Observation", "laboratory"): [observation()],
        ("Observation", "vital-signs"): [vital_sign(), blood_pressure()],
        ("Encounter", None): [visit],
        ("ServiceRequest", None): [service_request("o0", authoredOn="2015-01-02T08:00:00Z")],
    }

    class Emr:
        async def send(self, request):
            kind, form = request.url.rsplit("/", 2)[1], dict(request.form)
            found = held.get(kind) or by_what_was_asked[kind, form.get("category")]
            body = json.dumps(page_of(*found)).encode()
            return Response(status=200, content_type="application/fhir+json", body=body)

    fetched = await FhirSource(client_of(Emr()), clock=clock).fetch(Subject(patient_id="p1"), EVERYTHING, as_of=now)
    assert fetched.dropped == {}
    # Not under 18, adult; female, not male; race; ethnicity; 30 %; 80, 120 and 70; one of each that is counted.
    assert vectorize(fetched.facts, EVERYTHING, now).dense().tolist() == [0, 1, 1, 0, 1, 1, 30, 80, 120, 70, *[1] * 5]


async def test_the_very_order_of_the_event_is_no_order_of_the_past(fetch, emr_of, service_request):
    orders = FeatureSpec(schema_version=1, groups=(coded(features.OrderGroup, "orders", Code(LOINC, "57021-8")),))
    emr = emr_of(ServiceRequest=[service_request("o1")])
    fetched = await fetch(emr, spec=orders)
    assert fetched.facts.orders == ()
    without_order = await fetch(emr, Subject(patient_id="p1"), spec=orders)
    assert [order.fact_id for order in without_order.facts.orders] == ["o1"]


@pytest.mark.parametrize(
    ("kind", "name"), [("Observation", "vitals"), ("Procedure", "procedures"), ("ServiceRequest", "orders"),
                       ("Encounter", "visits")]
)  # fmt: skip
async def test_one_measurement_procedure_order_or_visit_of_another_patient_stops_everything(
    fetch, emr_of, vital_sign, procedure, service_request, encounter, kind, name
):
    build = {"Observation": vital_sign, "Procedure": procedure, "ServiceRequest": service_request,
             "Encounter": encounter}[kind]  # fmt: skip
    spec = FeatureSpec(schema_version=1, groups=tuple(group for group in ONE_OF_EACH_KIND if group.name == name))
    held = {kind: [build("x1"), build("x2", subject={"reference": "Patient/p2"})]}
    with pytest.raises(WrongPatient):
        await fetch(emr_of(**held), Subject(patient_id="p1"), spec=spec)


async def test_every_search_is_recorded(fetch, emr_of):
    records = (await fetch(emr_of())).fetches
    assert sorted(record.resource for record in records) == [
        "Condition",
        "Encounter",
        "MedicationRequest",
        "Observation",
        "Patient",
        "ServiceRequest",
    ]
    assert {(record.resources, record.pages) for record in records} == {(1, 1)}


async def test_all_searches_that_do_not_depend_on_each_other_are_on_their_way_at_once(
    page_of, client_of, feature_spec, now, emr_of, clock
):
    underway, peak = 0, 0

    class Counting:
        async def send(self, request):
            nonlocal underway, peak
            underway += 1
            peak = max(peak, underway)
            for _ in range(3):
                await asyncio.sleep(0)
            underway -= 1
            return await emr.send(request)

    emr = emr_of()
    await FhirSource(client_of(Counting()), clock=clock).fetch(ABOUT_ORDER, feature_spec, as_of=now)
    assert peak == 6


async def test_nothing_is_looked_up_that_the_request_does_not_name(fetch, emr_of):
    emr = emr_of()
    fetched = await fetch(emr, Subject(patient_id="p1"), spec=ONLY_SEX)
    assert emr.asked == [("Patient", {"_id": "p1", "_count": "1000"})]
    assert fetched.encounter is None


async def test_the_encounter_of_the_order_is_looked_up_where_the_request_names_none(fetch, emr_of):
    emr = emr_of()
    fetched = await fetch(emr, Subject(patient_id="p1", order_id="o1"), spec=ONLY_SEX)
    assert emr.asked[-1] == ("Encounter", {"_id": "e1", "_count": "1000"})
    assert fetched.encounter.contact_serial_number == "42"


async def test_an_order_without_an_encounter_leaves_the_encounter_open(fetch, emr_of, service_request):
    emr = emr_of(ServiceRequest=[service_request(encounter=None)])
    assert (await fetch(emr, Subject(patient_id="p1", order_id="o1"), spec=ONLY_SEX)).encounter is None
    assert (await fetch(emr, spec=ONLY_SEX)).encounter.encounter_id == "e1"


async def test_the_sites_system_says_which_identifier_is_the_csn(fetch, emr_of):
    assert (await fetch(emr_of(), csn_system="urn:csn")).encounter.contact_serial_number == "42"
    assert (await fetch(emr_of(), csn_system="urn:other")).encounter.contact_serial_number is None


# -- identity


@pytest.mark.parametrize("how_many", [0, 2])
async def test_a_patient_whom_the_emr_does_not_know_exactly_once_is_unknown(fetch, emr_of, patient, how_many):
    with pytest.raises(UnknownPatient):
        await fetch(emr_of(Patient=[patient(f"p{i + 1}") for i in range(how_many)]))


@pytest.mark.parametrize("kind", ["Encounter", "ServiceRequest"])
async def test_an_encounter_or_order_that_the_emr_does_not_know_is_an_unknown_context(fetch, emr_of, kind):
    with pytest.raises(UnknownContext):
        await fetch(emr_of(**{kind: []}))


async def test_another_patient_than_was_asked_for_is_the_wrong_patient(fetch, emr_of, patient):
    with pytest.raises(WrongPatient):
        await fetch(emr_of(Patient=[patient("p2")]))


async def test_a_record_that_was_merged_into_another_is_not_scored_as_an_empty_one(fetch, emr_of, patient):
    link = [{"type": "replaced-by", "other": {"reference": "Patient/p2"}}]
    with pytest.raises(WrongPatient, match="merged"):
        await fetch(emr_of(Patient=[patient(active=False, link=link)]))


async def test_a_record_that_took_another_over_is_scored(fetch, emr_of, patient):
    link = [{"type": "replaces", "other": {"reference": "Patient/p0"}}]
    assert (await fetch(emr_of(Patient=[patient(link=link)]))).facts.patient_id == "p1"


@pytest.mark.parametrize("about", [{"reference": "Patient/p2"}, {"reference": "p1"}, {"identifier": {}}, None])
@pytest.mark.parametrize("kind", ["Encounter", "ServiceRequest"])
async def test_an_encounter_or_order_of_another_patient_or_of_nobody_is_the_wrong_patient(
    fetch, emr_of, encounter, service_request, kind, about
):
    resource = {"Encounter": encounter, "ServiceRequest": service_request}[kind](subject=about)
    with pytest.raises(WrongPatient):
        await fetch(emr_of(**{kind: [resource]}))


async def test_an_order_of_another_encounter_than_the_request_names_is_the_wrong_patient(
    fetch, emr_of, service_request
):
    with pytest.raises(WrongPatient):
        await fetch(emr_of(ServiceRequest=[service_request(encounter={"reference": "Encounter/e2"})]))


@pytest.mark.parametrize(
    "reference",
    ["Patient/p2", "https://other.example/fhir/Patient/p1", "urn:uuid:1", "Group/p1", "p1"],
)
@pytest.mark.parametrize("kind", ["Observation", "Condition", "MedicationRequest"])
async def test_one_fact_of_another_patient_stops_everything(
    fetch, emr_of, observation, condition, medication_request, kind, reference
):
    build = {"Observation": observation, "Condition": condition, "MedicationRequest": medication_request}[kind]
    resources = [build("x1"), build("x2", subject={"reference": reference}), build("x3")]
    with pytest.raises(WrongPatient):
        await fetch(emr_of(**{kind: resources}))


@pytest.mark.parametrize("subject", [None, {}, {"identifier": {"value": "p1"}}, {"reference": "#p1"}])
async def test_a_fact_about_nobody_is_left_out_and_counted(fetch, emr_of, observation, subject):
    fetched = await fetch(emr_of(Observation=[observation("a", subject=subject), observation("b")]))
    assert [lab.fact_id for lab in fetched.facts.labs] == ["b"]
    assert fetched.dropped == {"any.no_subject": 1}


async def test_an_absolute_and_a_versioned_reference_to_the_patient_are_the_patient(
    fetch, emr_of, observation, fhir_base
):
    subjects = ["Patient/p1", "Patient/p1/_history/2", f"{fhir_base}/Patient/p1"]
    resources = [observation(f"l{i}", subject={"reference": text}) for i, text in enumerate(subjects)]
    assert len((await fetch(emr_of(Observation=resources))).facts.labs) == 3


async def test_what_cannot_be_used_is_counted_by_reason(fetch, emr_of, observation, condition, medication_request):
    emr = emr_of(
        Observation=[observation("a", status="preliminary"), observation("b", status="cancelled"), observation("c")],
        Condition=[condition("d", recordedDate=None)],
        MedicationRequest=[medication_request("e", status="draft")],
    )
    assert (await fetch(emr)).dropped == {
        "labs.status_not_final": 2,
        "diagnoses.no_recorded_date": 1,
        "medications.not_so": 1,
    }


@pytest.mark.parametrize("kind", ["Observation", "Condition", "MedicationRequest", "ServiceRequest", "Encounter"])
async def test_a_date_that_is_none_fails_the_whole_answer(
    fetch, emr_of, observation, condition, medication_request, service_request, encounter, kind
):
    resource = {
        "Observation": observation(issued="CANARY"),
        "Condition": condition(recordedDate="CANARY"),
        "MedicationRequest": medication_request(authoredOn="CANARY"),
        "ServiceRequest": service_request(authoredOn="CANARY"),
        "Encounter": encounter(period={"start": "CANARY"}),
    }[kind]
    with pytest.raises(EmrBadResponse) as caught:
        await fetch(emr_of(**{kind: [resource]}))
    assert "CANARY" not in str(caught.value)


# -- failures


@pytest.mark.parametrize(
    "kind", ["Patient", "Encounter", "ServiceRequest", "Observation", "Condition", "MedicationRequest"]
)
async def test_a_search_that_failed_is_a_failure_and_never_nothing_there(fetch, emr_of, kind):
    with pytest.raises(EmrUnreachable):
        await fetch(emr_of(**{kind: EmrUnreachable("down")}))


async def test_when_one_search_fails_the_others_are_cancelled(client_of, feature_spec, now, clock):
    cancelled = []

    class OneFails:
        async def send(self, request):
            if "Observation" in request.url:
                raise EmrUnreachable("down")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.url)
                raise

    with pytest.raises(EmrUnreachable):
        await FhirSource(client_of(OneFails()), clock=clock).fetch(ABOUT_ORDER, feature_spec, as_of=now)
    assert len(cancelled) == 5


async def test_a_request_that_is_given_up_takes_its_searches_with_it(client_of, feature_spec, now, clock):
    asked, cancelled, all_asked = [], [], asyncio.Event()

    class Hanging:
        async def send(self, request):
            asked.append(request.url)
            if len(asked) == 6:
                all_asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.url)
                raise

    source = FhirSource(client_of(Hanging()), clock=clock)
    fetching = asyncio.ensure_future(source.fetch(ABOUT_ORDER, feature_spec, as_of=now))
    await all_asked.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert sorted(cancelled) == sorted(asked)


async def test_what_was_fetched_shows_nothing_of_the_patient(fetch, emr_of):
    shown = repr(await fetch(emr_of()))
    for mark in ("p1", "lab1", "30.0", "1950", "o1"):
        assert mark not in shown
