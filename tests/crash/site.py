"""The site that crashes: its patients, its bundle, its settings, and how each channel asks about an order."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec

from deployr_core import bundle as bundles
from tests.cda import SETTINGS as BPA_SETTINGS
from tests.cda import cda, ii

MODEL = "hematocrit"
BATCH = "icu"
NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
SLOT = NOW.replace(minute=50)
WARD, AT_HOME = ("p11", "p12", "p13"), ("p1", "p2", "p3")
"""Who is on the batch's worklist, and who is asked about one by one."""
PROCESS = {"FUNCTIONS_WORKER_RUNTIME": "python", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
_LOINC = "http://loinc.org"

_POLICY = """\
schema_version: 1
model: hematocrit
mode: trial
threshold: 0.5
trial:
  trial_id: t
  version: 1
  unit: patient
  arms:
    - {name: short, shows: true}
    - {name: long, shows: true}
  method: {kind: permuted-blocks, sizes: [2, 4]}
advisory:
  headline: "Likely unchanged: {score_percent}"
"""
_BATCH = """\
schema_version: 1
name: icu
models: [hematocrit]
schedule: '0 50 * * * *'
chunk_size: 2
worklist: {from: fhir, locations: [icu]}
"""
_OUTPUTS = """\
schema_version: 1
flowsheet: {rows: {hematocrit: "90001"}}
in-basket: {recipients: [{id: "P77"}], sender_id: "DEPLOYR"}
"""


def chart(*patients: str, location: str = "icu") -> list[dict[str, Any]]:
    """Give each patient's chart: in an encounter, an order at `NOW`, a hematocrit before it and one because of it."""
    return [resource for patient_id in patients for resource in _chart(patient_id, location)]


def csn(patient_id: str) -> str:
    """Give the contact serial number of the patient's encounter."""
    return f"7{int(patient_id.removeprefix('p')):05d}"


def _chart(patient_id: str, location: str) -> list[dict[str, Any]]:
    subject = {"reference": f"Patient/{patient_id}"}
    encounter = {"reference": f"Encounter/e{patient_id}"}

    def result(suffix: str, taken: str, released: str, **links: Any) -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "id": f"lab-{patient_id}-{suffix}",
            "status": "final",
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"coding": [{"system": _LOINC, "code": "4544-3"}]},
            "subject": subject,
            "effectiveDateTime": taken,
            "issued": released,
            "valueQuantity": {"value": 30, "unit": "%"},
            "referenceRange": [{"low": {"value": 35, "unit": "%"}, "high": {"value": 47, "unit": "%"}}],
            **links,
        }

    return [
        {"resourceType": "Patient", "id": patient_id, "gender": "female", "birthDate": "1950-03-04"},
        {
            "resourceType": "Encounter",
            "id": f"e{patient_id}",
            "status": "in-progress",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": subject,
            "identifier": [{"type": {"text": "CSN"}, "value": csn(patient_id)}],
            "period": {"start": "2015-01-06T10:00:00Z"},
            "location": [{"location": {"reference": f"Location/{location}"}}],
        },
        {
            "resourceType": "ServiceRequest",
            "id": f"o{patient_id}",
            "status": "completed",
            "intent": "order",
            "code": {"coding": [{"system": _LOINC, "code": "57021-8"}]},
            "subject": subject,
            "encounter": encounter,
            "authoredOn": "2015-01-06T20:55:00Z",
        },
        result("before", "2015-01-06T18:00:00Z", "2015-01-06T19:00:00Z"),
        result(
            "after",
            "2015-01-06T21:30:00Z",
            "2015-01-06T22:30:00Z",
            basedOn=[{"reference": f"ServiceRequest/o{patient_id}"}],
        ),
    ]


def write_ndjson(file: Path, resources: list[dict[str, Any]]) -> None:
    """Write a chart for the mock EMR to load."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\n".join(msgspec.json.encode(one) for one in resources))


def write_site(folder: Path, bundle_files: Mapping[str, bytes], *, outputs: str, url: str) -> dict[str, str]:
    """Write what the app reads at its start; give the settings that name it, all but the store's."""
    model = folder / "bundles" / MODEL
    for at in (model, folder / "deployments", folder / "batches"):
        at.mkdir(parents=True, exist_ok=True)
    for name in (bundles.MANIFEST_FILE, *bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE]).part_names):
        (model / name).write_bytes(bundle_files[name])
    (folder / "deployments" / f"{MODEL}.yaml").write_text(_POLICY)
    (folder / "batches" / f"{BATCH}.yaml").write_text(_BATCH)
    (folder / "outputs.yaml").write_text(_OUTPUTS)
    return {
        "DEPLOYR_BUNDLES": str(folder / "bundles"),
        "DEPLOYR_DEPLOYMENTS": str(folder / "deployments"),
        "DEPLOYR_BATCHES": str(folder / "batches"),
        "DEPLOYR_EMR_FHIR_BASE": f"{url}/api/FHIR/R4",
        "DEPLOYR_EMR_VENDOR_BASE": url,
        "DEPLOYR_EMR_USER_ID": "U1",
        "DEPLOYR_OUTPUTS": outputs,
        "DEPLOYR_OUTPUTS_FILE": str(folder / "outputs.yaml"),
        "DEPLOYR_ID_KEY": "a key of this test's own",
        **BPA_SETTINGS,
    }


def put_clock(file: Path, instant: datetime, *, emr: str) -> None:
    """Put the app's clock and the EMR's at an instant: durations are as they were on both."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(instant.isoformat())
    # In one move: somebody may be reading it.
    fresh.replace(file)
    urlopen(f"{emr}/crash/clock?{urlencode({'now': instant.isoformat()})}", timeout=30).close()


def json_ask(patient_id: str, at: datetime) -> tuple[str, str, bytes]:
    """Give path, content type and body of a JSON request about the patient's order."""
    asked = {
        "patientId": patient_id,
        "encounterId": f"e{patient_id}",
        "orderId": f"o{patient_id}",
        "eventTime": at.isoformat(),
    }
    return f"/api/models/{MODEL}/infer", "application/json", json.dumps(asked).encode()


def bpa_ask(patient_id: str, at: datetime) -> tuple[str, str, bytes]:
    """Give the same as an alert sends it."""
    document = cda(
        patient=ii(1, patient_id),
        encounter=ii(3, f"e{patient_id}"),
        order=ii(5, f"o{patient_id}"),
        time=f'<effectiveTime value="{at:%Y%m%d%H%M%S}+0000"/>',
    )
    return f"/api/bpa/{MODEL}", "application/xml", document.encode()


def cds_ask(patient_id: str, *, fhir_base: str) -> tuple[str, str, bytes]:
    """Give what fires the hook of an order that is about to be signed, of one instance for each patient."""
    drafted = {
        "resourceType": "ServiceRequest",
        "id": f"d{patient_id}",
        "status": "draft",
        "intent": "order",
        "code": {"coding": [{"system": _LOINC, "code": "57021-8"}]},
        "subject": {"reference": f"Patient/{patient_id}"},
    }
    fired = {
        "hook": "order-sign",
        "hookInstance": str(uuid.uuid5(uuid.NAMESPACE_OID, patient_id)),
        "fhirServer": fhir_base,
        "context": {
            "userId": "Practitioner/dr1",
            "patientId": patient_id,
            "encounterId": f"e{patient_id}",
            "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": drafted}]},
        },
    }
    return f"/cds-services/{MODEL}-order-sign", "application/json", json.dumps(fired).encode()
