"""Inferences on a FHIR server that this project did not write, Medplum's, beside the same chart in the mock EMR."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from deployr_core.bundle import MANIFEST_FILE, parse_manifest
from deployr_core.coverage import Requirements
from deployr_core.layout import layout_of

SERVER = Path(__file__).parent / "medplum"
RESULTS = 1_001
"""One more than fit on the pages of 1,000 that we ask for."""
EXPECTED = {
    "sex/female": 1.0,
    # One of 30 % before the event; the one after it was not known yet.
    "labs/4544-3/count": 1.0,
    "labs/4544-3/last": 30.0,
    "problem_list/D50.9": 1.0,
    # Named by a reference to a Medication of its own, which Medplum does not include when asked to.
    "drugs/310325": 1.0,
}


def missing():
    if shutil.which("node") is None:
        return "expected Node 20 or later to run Medplum's FHIR router with"
    if not (SERVER / "node_modules" / "@medplum").is_dir():
        return "expected Medplum's packages: npm ci in tests/foreign/medplum"
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@contextmanager
def medplum():
    """Run the server for as long as the context lasts; give the address of its FHIR base."""
    process = subprocess.Popen(
        ["node", str(SERVER / "server.mjs")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        yield process.stdout.readline().removeprefix("Ready ").strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def server():
    with medplum() as base:
        yield base


def put(base, resources):
    for resource in resources:
        request = urllib.request.Request(
            f"{base}/{resource['resourceType']}/{resource['id']}",
            data=json.dumps(resource).encode(),
            headers={"Content-Type": "application/fhir+json"},
            method="PUT",
        )
        with urllib.request.urlopen(request) as response:
            assert response.status == 200


def get(base, query):
    with urllib.request.urlopen(f"{base}/{query}") as response:
        return json.loads(response.read())


@pytest.fixture
def chart(chart_of):
    """Give a patient's chart with a result of 30 %, iron deficiency on the problem list, and a drug by reference."""

    def coded(system, code):
        return {"coding": [{"system": system, "code": code}]}

    def make(patient_id):
        ids = {"encounter_id": f"{patient_id}-e", "order_id": f"{patient_id}-o", "lab_id": f"{patient_id}-l"}
        subject = {"reference": f"Patient/{patient_id}"}
        category = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-category"}]}
        category["coding"][0]["code"] = "problem-list-item"
        return [
            *chart_of(patient_id, csn=f"csn-{patient_id}", value=30, birth="1950-05-01", **ids),
            {
                "resourceType": "Condition",
                "id": f"{patient_id}-c",
                "category": [category],
                "code": coded("http://hl7.org/fhir/sid/icd-10-cm", "D50.9"),
                "subject": subject,
                "recordedDate": "2015-01-02T08:00:00Z",
            },
            {
                "resourceType": "Medication",
                "id": f"{patient_id}-m",
                "code": coded("http://www.nlm.nih.gov/research/umls/rxnorm", "310325"),
            },
            {
                "resourceType": "MedicationRequest",
                "id": f"{patient_id}-r",
                "status": "active",
                "intent": "order",
                "medicationReference": {"reference": f"Medication/{patient_id}-m"},
                "subject": subject,
                "authoredOn": "2015-01-03T08:00:00Z",
            },
        ]

    return make


@pytest.fixture
def requiring_results(bundles_folder):
    """Have one of the two models require a laboratory result; give its id."""
    file = bundles_folder / "anemia" / MANIFEST_FILE
    manifest = parse_manifest(file.read_bytes())
    file.write_bytes(msgspec.structs.replace(manifest, requires=Requirements(groups=("labs",))).to_json())
    return "anemia"


@pytest.fixture
def ask(app_of):
    """Give a function that has a patient scored from a FHIR base; it gives the answer and the stored packet."""

    async def score(base, patient_id, *, model="hematocrit", **settings):
        typed = {"DEPLOYR_EMR_PATIENT_REFERENCE": "typed"}
        app = app_of(base, **{**typed, **settings}, DEPLOYR_EMR_FHIR_BASE=base, DEPLOYR_EMR_VENDOR_BASE="")
        answer = await app.infer(
            model=model,
            patientId=patient_id,
            encounterId=f"{patient_id}-e",
            orderId=f"{patient_id}-o",
        )
        stored = await app.store.read(answer.headers["X-Packet-Id"])
        return json.loads(answer.get_body()), stored.packet

    return score


@pytest.fixture
def features(feature_spec):
    """Give a function that names the features that were scored."""
    names = layout_of(feature_spec).names

    def named(packet):
        vector = packet.outcome.vector
        return {names[index]: value for index, value in zip(vector.indices, vector.values, strict=True)}

    return named


async def test_medplum_and_the_mock_give_the_same_features_and_score(server, emr_of, chart, ask, features):
    put(server, chart("same"))
    mock = await emr_of(*chart("same"))

    foreign, of_medplum = await ask(server, "same")
    own, of_mock = await ask(f"{mock.url}/api/FHIR/R4", "same")

    assert foreign["status"] == own["status"] == "scored"
    # The model's leaf for a patient with a result in the window.
    assert foreign["score"] == own["score"] == 3 / 4
    assert features(of_medplum) == features(of_mock) == EXPECTED


async def test_medplum_by_get_gives_the_same_score(server, chart, ask):
    put(server, chart("get"))

    answer, _ = await ask(server, "get", DEPLOYR_EMR_SEARCH="get")

    assert answer["score"] == 3 / 4


async def test_a_page_that_medplum_cuts_without_a_next_link_is_refused_as_incomplete(server, chart, ask):
    resources = chart("long")
    result = next(each for each in resources if each["resourceType"] == "Observation")
    put(server, resources)
    put(server, [{**result, "id": f"long-{number}"} for number in range(RESULTS)])

    shown = get(server, "Observation?patient=Patient/long&_count=2")
    answer, packet = await ask(server, "long")

    # Two of a thousand and five: a total that says so, and no way to the others.
    assert (len(shown["entry"]), shown["total"], "link" in shown) == (2, RESULTS + 2, False)
    assert answer["resourceType"] == "OperationOutcome"
    assert packet.outcome.reason == "emr-incomplete"


async def test_a_patient_whom_medplum_does_not_know_is_refused(server, ask):
    _, packet = await ask(server, "nobody")

    assert packet.outcome.reason == "unknown-patient"


async def test_by_an_id_alone_medplum_finds_nothing_without_saying_so_and_the_coverage_gate_abstains(
    server, chart, ask, requiring_results
):
    put(server, chart("strict"))

    by_id, by_reference = (get(server, f"Observation?patient={name}") for name in ("strict", "Patient/strict"))
    answer, packet = await ask(server, "strict", model=requiring_results, DEPLOYR_EMR_PATIENT_REFERENCE="id")

    assert (by_id["total"], by_reference["total"]) == (0, 2)
    assert (answer["status"], answer["score"]) == ("abstained", None)
    assert packet.outcome.reason == "sparse"
