"""Who is this: exactly one patient, or a refusal (rows 94 and 117)."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.identity import (
    Encounters,
    FhirPatients,
    ResolvedEncounter,
    ResolvedPatient,
    VendorPatients,
)
from deployr_serve.core.errors import (
    AmbiguousPatient,
    EmrBadResponse,
    MalformedRequest,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.ports import Budget, TypedIdentifier

BASE = "https://emr.example/Interconnect"
BUDGET = Budget(deadline=1e9, correlation_id="c1")
SYSTEMS = {"MRN": "urn:mrn", "EPI": "urn:epi"}
MRN, EPI, CSN = (
    TypedIdentifier(type=kind, value=value) for kind, value in (("MRN", "M1"), ("EPI", "E1"), ("CSN", "42"))
)


def patient(patient_id="p1", *, mrn="M1", epi="E1", **elements):
    identifiers = [{"system": "urn:mrn", "value": mrn}, {"system": "urn:epi", "value": epi}]
    return {"resourceType": "Patient", "id": patient_id, "identifier": identifiers, **elements}


def encounter(encounter_id="e1", *, of="Patient/p1", system="urn:csn", csn="42"):
    identifier = {"system": system, "value": csn, "type": {"text": "CSN"}}
    subject = {"subject": {"reference": of}} if of else {}
    return {"resourceType": "Encounter", "id": encounter_id, "identifier": [identifier], **subject}


@pytest.fixture
def fhir(transport_of, client_of, page_of):
    """Give a function that makes the indexes of a server that finds these, by the parameters of the search."""

    def make(found, *, csn_system="urn:csn"):
        def answer(request):
            form = dict(request.form)
            asked = (urlsplit(request.url).path.split("/")[-2], form.get("identifier") or f"_id={form['_id']}")
            resources = found.get(asked, [])
            return json.dumps(page_of(*resources, total=len(resources))).encode()

        transport = transport_of(answer)
        client = client_of(transport)
        encounters = Encounters(client, csn_system=csn_system)
        return FhirPatients(client, systems=SYSTEMS, encounters=encounters), encounters, transport

    return make


async def test_an_identifier_leads_to_its_patient_and_to_what_else_the_patient_is_called(fhir):
    patients, _, transport = fhir({("Patient", "urn:mrn|M1"): [patient()]})
    found = await patients.resolve((MRN,), budget=BUDGET)
    assert found == ResolvedPatient(fhir_id="p1", also={"MRN": "M1", "EPI": "E1"})
    [request] = transport.requests
    assert "M1" not in request.url + repr(request) + repr(MRN) + repr(found)
    assert request.budget is BUDGET


async def test_several_identifiers_of_one_patient_agree(fhir):
    everything = {
        ("Patient", "urn:mrn|M1"): [patient()],
        ("Patient", "urn:epi|E1"): [patient()],
        ("Encounter", "urn:csn|42"): [encounter()],
        ("Patient", "_id=p1"): [patient()],
    }
    patients, _, _ = fhir(everything)
    assert (await patients.resolve((MRN, EPI, CSN), budget=BUDGET)).fhir_id == "p1"
    fhir_id = TypedIdentifier(type="FHIR", value="p1")
    assert (await patients.resolve((fhir_id,), budget=BUDGET)).fhir_id == "p1"


@pytest.mark.parametrize(
    ("found", "identifiers", "error"),
    [
        ({}, (MRN,), UnknownPatient),
        ({("Patient", "urn:mrn|M1"): [patient(), patient("p2")]}, (MRN,), AmbiguousPatient),
        (
            {("Patient", "urn:mrn|M1"): [patient()], ("Patient", "urn:epi|E1"): [patient("p2")]},
            (MRN, EPI),
            AmbiguousPatient,
        ),
        ({("Patient", "urn:mrn|M1"): [patient()]}, (MRN, EPI), UnknownPatient),
        ({("Patient", "urn:mrn|M1"): [patient(mrn="M2")]}, (MRN,), WrongPatient),
        ({("Patient", "urn:mrn|M1"): [patient(mrn="m1")]}, (MRN,), WrongPatient),
        ({("Patient", "_id=p1"): [patient("p2")]}, (TypedIdentifier(type="FHIR", value="p1"),), WrongPatient),
        (
            {
                ("Patient", "urn:mrn|M1"): [
                    patient(link=[{"type": "replaced-by", "other": {"reference": "Patient/p9"}}])
                ]
            },
            (MRN,),
            WrongPatient,
        ),
        ({("Patient", "urn:mrn|M1"): [patient(active=False)]}, (MRN,), WrongPatient),
        ({("Encounter", "urn:csn|42"): [encounter()]}, (CSN,), UnknownPatient),
        ({}, (CSN,), UnknownContext),
        ({}, (), MalformedRequest),
        ({}, (TypedIdentifier(type="SSN", value="1"),), MalformedRequest),
        ({}, (TypedIdentifier(type="mrn", value="M1"),), MalformedRequest),
        ({}, (TypedIdentifier(type="MRN", value=" "),), MalformedRequest),
    ],
)
async def test_whoever_is_not_exactly_one_patient_is_refused(fhir, found, identifiers, error):
    patients, _, _ = fhir(found)
    with pytest.raises(error) as raised:
        await patients.resolve(identifiers, budget=BUDGET)
    assert "M1" not in str(raised.value)


async def test_a_type_of_which_the_patient_has_two_ids_is_left_out_of_what_else_there_is(fhir):
    two = patient()
    two["identifier"].append({"system": "urn:epi", "value": "E2"})
    patients, _, _ = fhir({("Patient", "urn:mrn|M1"): [two]})
    assert (await patients.resolve((MRN,), budget=BUDGET)).also == {"MRN": "M1"}


async def test_what_means_something_in_a_search_is_escaped(fhir):
    odd = TypedIdentifier(type="MRN", value="M,1|$\\")
    patients, _, _ = fhir({("Patient", "urn:mrn|M\\,1\\|\\$\\\\"): [patient(mrn="M,1|$\\")]})
    assert (await patients.resolve((odd,), budget=BUDGET)).fhir_id == "p1"


# -- encounters


async def test_a_contact_serial_number_leads_to_one_encounter_and_its_patient(fhir):
    _, encounters, _ = fhir({("Encounter", "urn:csn|42"): [encounter()]})
    found = await encounters.with_csn("42", budget=BUDGET)
    assert found == ResolvedEncounter(encounter_id="e1", patient_id="p1")
    assert "e1" not in repr(found)


async def test_without_a_system_the_number_goes_by_its_type(fhir):
    _, encounters, _ = fhir({("Encounter", "42"): [encounter(system="urn:other")]}, csn_system=None)
    assert (await encounters.with_csn("42", budget=BUDGET)).encounter_id == "e1"
    untyped = encounter()
    del untyped["identifier"][0]["type"]
    _, encounters, _ = fhir({("Encounter", "42"): [untyped]}, csn_system=None)
    with pytest.raises(WrongPatient):
        await encounters.with_csn("42", budget=BUDGET)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([], UnknownContext),
        ([encounter(), encounter("e2")], UnknownContext),
        ([encounter(csn="43")], WrongPatient),
        ([encounter(system="urn:other")], WrongPatient),
        ([encounter(of=None)], WrongPatient),
        ([encounter(of="https://other.example/Patient/p1")], WrongPatient),
    ],
)
async def test_a_number_that_is_not_exactly_one_encounters_is_refused(fhir, found, error):
    _, encounters, _ = fhir({("Encounter", "urn:csn|42"): found})
    with pytest.raises(error):
        await encounters.with_csn("42", budget=BUDGET)


# -- the vendor's index


def identifiers(*pairs):
    return {"Identifiers": [{"ID": value, "IDType": kind} for kind, value in pairs]}


P1 = (("FHIR", "p1"), ("FHIR STU3", "T1"), ("EPI", "E1"), ("MRN", "M1"))


@pytest.fixture
def vendor(clock, transport_of):
    """Give a function that makes the index of a vendor who answers so, by the identifier asked for."""

    def make(answers):
        def answer(request):
            query = parse_qs(urlsplit(request.url).query)
            given = answers[query["PatientIDType"][0], query["PatientID"][0]]
            return given if isinstance(given, Response) else json.dumps(given).encode()

        client = VendorClient(base=BASE, transport=transport_of(answer), credentials=NoCredentials(), clock=clock)
        return VendorPatients(client)

    return make


def refusal(code):
    told = {"ExceptionMessage": f"An error occurred while executing the command: {code} details: M1."}
    return Response(status=400, content_type="application/json", body=json.dumps(told).encode())


async def test_the_vendor_tells_every_identifier_of_a_patient(vendor):
    index = vendor({("MRN", "M1"): identifiers(*P1), ("EPI", "E1"): identifiers(*P1)})
    found = await index.resolve((MRN, EPI), budget=BUDGET)
    assert found == ResolvedPatient(fhir_id="p1", also=dict(P1))


async def test_a_contact_is_echoed_like_any_other_identifier(vendor):
    index = vendor({("CSN", "42"): identifiers(*P1, ("CSN", "42"))})
    assert (await index.resolve((CSN,), budget=BUDGET)).fhir_id == "p1"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (identifiers(), UnknownPatient),
        (refusal("EPT_ID_RETRIEVAL_ERROR"), UnknownPatient),
        (refusal("MULTIPLE-PATIENTS-FOUND"), AmbiguousPatient),
        (refusal("INVALID-ID-TYPE"), MalformedRequest),
        (identifiers(("FHIR", "p2"), ("MRN", "M2")), WrongPatient),
        (identifiers(("FHIR", "p1"), ("EPI", "M1")), WrongPatient),
        (identifiers(("MRN", "M1")), UnknownPatient),
        (identifiers(*P1, ("FHIR", "p2")), AmbiguousPatient),
        ({"Identifiers": None}, EmrBadResponse),
        ({"Identifiers": [{"ID": "p1"}]}, EmrBadResponse),
        ({"Status": 0, "ErrorMessage": "No"}, EmrBadResponse),
    ],
)
async def test_whoever_the_vendor_does_not_name_as_exactly_one_patient_is_refused(vendor, answer, error):
    with pytest.raises(error) as raised:
        await vendor({("MRN", "M1"): answer}).resolve((MRN,), budget=BUDGET)
    assert "M1" not in str(raised.value)


async def test_ids_for_another_epi_are_refused(vendor):
    index = vendor({("MRN", "M1"): identifiers(*P1), ("EPI", "E1"): identifiers(("FHIR", "p2"), ("EPI", "E1"))})
    with pytest.raises(AmbiguousPatient):
        await index.resolve((MRN, EPI), budget=BUDGET)


async def test_the_vendor_is_asked_for_nobody_without_an_identifier(vendor):
    with pytest.raises(MalformedRequest):
        await vendor({}).resolve((), budget=BUDGET)
