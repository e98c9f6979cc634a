"""Every kind of feature group, from its declaration through real searches of an EMR on loopback to its features."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployr_core import features
from deployr_core.codes import ICD10CM, LOINC, RXNORM, SNOMED, Code
from deployr_core.declared import Analyte, FixedCodes, Statistic
from deployr_core.facts import DiagnosisList
from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_core.vectorize import vectorize
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport
from mock_emr.emr import FHIR_ROOT

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
UCUM = "http://unitsofmeasure.org"


def counted(kind, name, code, **more):
    return kind(name=name, systems=(code.system,), codes=FixedCodes(codes=(code,)), lookback_days=30, **more)


def last(kind, name, *codes, unit, also=()):
    analytes = tuple(Analyte(system=LOINC, code=code, name=code, unit=unit, also=also) for code in codes)
    return kind(name=name, analytes=analytes, statistics=(Statistic.LAST,), lookback_days=30)


SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        features.SexGroup(),
        last(features.LabGroup, "labs", "4544-3", unit="%", also=(Code(LOINC, "20570-8"),)),
        last(features.VitalGroup, "pulse", "8867-4", unit="/min"),
        last(features.VitalGroup, "pressure", "8480-6", "8462-4", unit="mm[Hg]"),
        counted(features.DiagnosisGroup, "problems", Code(ICD10CM, "D50.9"), recorded_in=(DiagnosisList.PROBLEM_LIST,)),
        counted(features.MedicationGroup, "drugs", Code(RXNORM, "310325")),
        counted(features.ProcedureGroup, "procedures", Code(SNOMED, "80146002")),
        counted(features.OrderGroup, "orders", Code(LOINC, "57021-8")),
        counted(features.VisitGroup, "visits", Code(ACT, "EMER")),
    ),
)
NOTHING = [0.0] * 11
EVERYTHING = [1.0, 0.0, 30.0, 80.0, 120.0, 70.0, *[1.0] * 5]


def chart(at):
    """Give a patient with one of everything, each dated ``at``."""
    when = at.isoformat().replace("+00:00", "Z")

    def coded(system, code):
        return {"coding": [{"system": system, "code": code}]}

    def about(kind, resource_id, **elements):
        return {"resourceType": kind, "id": resource_id, "subject": {"reference": "Patient/p1"}, **elements}

    def observation(resource_id, category, code, **elements):
        return about(
            "Observation",
            resource_id,
            status="final",
            category=[{"coding": [{"code": category}]}],
            code=coded(LOINC, code),
            effectiveDateTime=when,
            issued=when,
            **elements,
        )

    def quantity(value, unit):
        return {"value": value, "unit": unit, "system": UCUM, "code": unit}

    def component(code, value):
        return {"code": coded(LOINC, code), "valueQuantity": quantity(value, "mm[Hg]")}

    return (
        {"resourceType": "Patient", "id": "p1", "gender": "female"},
        # Under the other code of the same test.
        observation("l1", "laboratory", "20570-8", valueQuantity=quantity(30, "%")),
        observation("v1", "vital-signs", "8867-4", valueQuantity=quantity(80, "/min")),
        observation("v2", "vital-signs", "85354-9", component=[component("8480-6", 120), component("8462-4", 70)]),
        about(
            "Condition",
            "c1",
            category=[{"coding": [{"code": "problem-list-item"}]}],
            code=coded(ICD10CM, "D50.9"),
            recordedDate=when,
        ),
        about(
            "MedicationRequest",
            "m1",
            status="active",
            intent="order",
            authoredOn=when,
            medicationCodeableConcept=coded(RXNORM, "310325"),
        ),
        about(
            "Procedure",
            "pr1",
            status="completed",
            code=coded(SNOMED, "80146002"),
            performedPeriod={"start": when},
        ),
        about("ServiceRequest", "o1", status="revoked", intent="order", authoredOn=when, code=coded(LOINC, "57021-8")),
        about(
            "Encounter", "e1", status="finished", period={"start": when}, **{"class": {"system": ACT, "code": "EMER"}}
        ),
    )


@pytest.fixture
async def row_of(emr_of, clock, now):
    """Give a function that puts a chart into an EMR and gives the features that are fetched from it at `now`."""
    transports = []

    async def run(*resources):
        emr = await emr_of(*resources)
        transports.append(AiohttpTransport(timeout_s=10.0, clock=clock))
        client = FhirClient(
            base=emr.url + FHIR_ROOT, transport=transports[-1], credentials=NoCredentials(), clock=clock
        )
        fetched = await FhirSource(client, clock=clock).fetch(Subject(patient_id="p1"), SPEC, as_of=now)
        return vectorize(fetched.facts, SPEC, now).dense().tolist()

    yield run
    for transport in transports:
        await transport.aclose()


def test_every_group_with_a_window_has_a_search_and_none_is_unfetchable(now):
    assert len(plan(SPEC, patient_id="p1", as_of=now)) == 7
    assert unfetchable(SPEC) == ()
    kinds = {type(group) for group in SPEC.groups}
    assert kinds >= set(features.WindowedGroup.__args__)


async def test_one_of_everything_in_the_window_is_every_feature(row_of, now):
    assert await row_of(*chart(now - timedelta(days=1))) == EVERYTHING


async def test_the_window_includes_its_start(row_of, now):
    assert await row_of(*chart(now - timedelta(days=30))) == EVERYTHING


@pytest.mark.parametrize("ago", [timedelta(days=30, seconds=1), timedelta(0)])
async def test_what_is_before_the_window_or_at_its_end_is_no_feature(row_of, now, ago):
    assert await row_of(*chart(now - ago)) == [1.0, *NOTHING[1:]]
