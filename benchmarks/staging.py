"""A patient and a model to measure with, made on the spot."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from deployr_cli.demo.run import TASK
from deployr_core.features import LabGroup
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.estimators import EstimatorChoice
from deployr_dev.sources.extract import Extract
from deployr_dev.training import TrainingOptions, train_bundle
from mock_emr.population.config import PopulationConfig
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
PATIENT, ENCOUNTER = "bench-patient", "bench-encounter"
_RESOURCES = 500


def write_model(folder: Path, *, trees: int) -> None:
    """Train the hematocrit model with so many trees, on a small synthetic hospital."""
    task = shipped_task(TASK)
    write_omop(generate(PopulationConfig(patients=150, weeks=4)), folder / "omop")
    with Extract.open(folder / "omop") as extract:
        options = TrainingOptions(estimator=EstimatorChoice(parameters={"n_estimators": trees}))
        trained = train_bundle(extract, task, shipped_declaration(task.declaration), options=options)
    write_bundle(trained, folder / "bundles" / TASK)


def write_patient(folder: Path, *, orders: int, now: datetime = NOW) -> None:
    """Write one patient with 500 resources that the model asks for, and orders to be signed, as NDJSON."""
    folder.mkdir(parents=True)
    files: dict[str, list[dict[str, Any]]] = {}
    for resource in _resources(orders, now):
        files.setdefault(resource["resourceType"], []).append(resource)
    for kind, resources in files.items():
        with gzip.open(folder / f"{kind}.ndjson.gz", "wb") as file:
            file.write(b"\n".join(msgspec.json.encode(resource) for resource in resources))


def _resources(orders: int, now: datetime) -> Iterator[dict[str, Any]]:
    subject = {"reference": f"Patient/{PATIENT}"}
    encounter = {"reference": f"Encounter/{ENCOUNTER}"}
    yield {"resourceType": "Patient", "id": PATIENT, "gender": "female", "birthDate": "1950-05-01"}
    yield {
        "resourceType": "Encounter",
        "id": ENCOUNTER,
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": subject,
        "period": {"start": (now - timedelta(days=9)).isoformat()},
    }
    for number in range(orders):
        yield {
            "resourceType": "ServiceRequest",
            "id": f"bench-order-{number}",
            "status": "active",
            "intent": "order",
            "code": {"coding": [{"system": "http://loinc.org", "code": "58410-2"}]},
            "subject": subject,
            "encounter": encounter,
            "authoredOn": (now - timedelta(minutes=1)).isoformat(),
        }
    spec = shipped_declaration(shipped_task(TASK).declaration)
    analytes = next(group.analytes for group in spec.groups if isinstance(group, LabGroup))
    for number in range(_RESOURCES - 100):
        analyte, at = analytes[number % len(analytes)], now - timedelta(hours=10 + number % 12)
        yield {
            "resourceType": "Observation",
            "id": f"bench-lab-{number}",
            "status": "final",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "laboratory",
                        }
                    ]
                }
            ],
            "code": {"coding": [{"system": analyte.system, "code": analyte.code}], "text": analyte.name},
            "subject": subject,
            "effectiveDateTime": at.isoformat(),
            "issued": (at + timedelta(minutes=40)).isoformat(),
            "valueQuantity": {
                "value": 10 + number % 30,
                "unit": analyte.unit,
                "system": "http://unitsofmeasure.org",
                "code": analyte.unit,
            },
        }
    for number in range(50):
        recorded = (now - timedelta(hours=20 + number)).isoformat()
        yield {
            "resourceType": "Condition",
            "id": f"bench-condition-{number}",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/condition-category",
                            "code": "encounter-diagnosis",
                        }
                    ]
                }
            ],
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": f"I{10 + number}.0"}]},
            "subject": subject,
            "recordedDate": recorded,
        }
        yield {
            "resourceType": "MedicationRequest",
            "id": f"bench-medication-{number}",
            "status": "active",
            "intent": "order",
            "medicationCodeableConcept": {
                "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": str(4000 + number)}]
            },
            "subject": subject,
            "authoredOn": recorded,
        }
