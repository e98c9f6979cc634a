"""Writes a population as FHIR R4: one gzipped NDJSON file a resource type, instants with the hospital's offset.

Source: FHIR R4 (4.0.1), https://hl7.org/fhir/R4/; US Core race and ethnicity extensions; the CSN identifier's
OID and type text as seen in Epic's sandbox.
"""

import gzip
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np

from mock_emr.population.codes import (
    CSN_SYSTEM,
    ETHNICITIES,
    ICD10CM,
    LOINC,
    OMB_CATEGORY,
    PERSON_SYSTEM,
    RACES,
    RXNORM,
    SEXES,
    UCUM,
    WARD_SYSTEM,
    Category,
    condition_id,
    encounter_id,
    medication_request_id,
    observation_id,
    patient_id,
    person_value,
    service_request_id,
)
from mock_emr.population.columns import (
    RESULT_AMENDED,
    RESULT_CORRECTED,
    RESULT_FINAL,
    Instants,
    Integers,
    Population,
)
from mock_emr.population.config import PopulationConfig
from mock_emr.population.diagnoses import DIAGNOSES
from mock_emr.population.drugs import DRUGS
from mock_emr.population.labs import ANALYTES, PANELS
from mock_emr.population.places import dispositions
from mock_emr.population.told import LOCAL_SYSTEM, local_code, telling, with_missing
from mock_emr.population.wards import WARDS

Resource = dict[str, Any]

US_CORE: Final = "http://hl7.org/fhir/us/core/StructureDefinition/"
TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
_STATUSES: Final = {RESULT_FINAL: "final", RESULT_CORRECTED: "corrected", RESULT_AMENDED: "amended"}
_LABORATORY: Final = [{"coding": [{"system": f"{TERMINOLOGY}observation-category", "code": "laboratory"}]}]
_LAB_PROCEDURE: Final = [
    {"coding": [{"system": "http://snomed.info/sct", "code": "108252007", "display": "Laboratory procedure"}]}
]


def write_fhir(population: Population, folder: Path) -> None:
    """Write ``folder/<ResourceType>.ndjson.gz`` for every type, replacing what is there.

    Equal populations give equal bytes: the gzip header carries neither time nor name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder = msgspec.json.Encoder()
    for name, resources in RESOURCES.items():
        with (
            (folder / f"{name}.ndjson.gz").open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
        ):
            told = with_missing(resources, population, name)
            file.writelines(encoder.encode(resource) + b"\n" for resource in told)


def patients(population: Population) -> Iterator[Resource]:
    """Give every Patient; an unknown race or ethnicity is left out, as an EMR leaves it out."""
    persons, stays = population.persons, population.stays
    dead = persons.person_id[stays.person_row[stays.died]].tolist()
    died = dict(zip(dead, _texts(stays.end[stays.died], population.config), strict=True))
    rows = zip(
        persons.person_id.tolist(),
        persons.birth_date.astype(str).tolist(),
        persons.sex_row.tolist(),
        persons.race_row.tolist(),
        persons.ethnicity_row.tolist(),
        strict=True,
    )
    for number, born, sex, race, ethnicity in rows:
        resource: Resource = {
            "resourceType": "Patient",
            "id": patient_id(number),
            "identifier": [{"system": PERSON_SYSTEM, "value": person_value(number)}],
            "gender": SEXES[sex].code,
            "birthDate": born,
        }
        extensions = [
            _us_core(name, category)
            for name, category in (("race", RACES[race]), ("ethnicity", ETHNICITIES[ethnicity]))
            if category.code
        ]
        if extensions:
            resource["extension"] = extensions
        if number in died:
            resource["deceasedDateTime"] = died[number]
        yield resource


def encounters(population: Population) -> Iterator[Resource]:
    """Give every Encounter, all finished: a stay open at the period's end ends there, and goes nowhere."""
    stays, config = population.stays, population.config
    places = _places(population)
    rows = zip(
        stays.visit_id.tolist(),
        stays.csn.tolist(),
        _subjects(population, stays.person_row),
        _texts(stays.start, config),
        _texts(stays.end, config),
        dispositions(population),
        places,
        strict=True,
    )
    for number, csn, subject, start, end, disposition, located in rows:
        resource: Resource = {
            "resourceType": "Encounter",
            "id": encounter_id(number),
            "identifier": [{"type": {"text": "CSN"}, "system": CSN_SYSTEM, "value": str(csn)}],
            "status": "finished",
            "class": {"system": f"{TERMINOLOGY}v3-ActCode", "code": "IMP"},
            "subject": subject,
            "period": {"start": start, "end": end},
            "location": located,
        }
        if disposition:
            resource["hospitalization"] = {
                "dischargeDisposition": _concept(f"{TERMINOLOGY}discharge-disposition", disposition)
            }
        yield resource


def conditions(population: Population) -> Iterator[Resource]:
    """Give every Condition; a problem-list item has no encounter."""
    table = population.conditions
    visits = population.stays.visit_id.tolist()
    codes = [
        _concept(ICD10CM, one.code, text=one.name)
        if mapped
        else _concept(LOCAL_SYSTEM, local_code("DX", row), text=one.name)
        for row, (one, mapped) in enumerate(zip(DIAGNOSES, telling(population, "fhir").diagnosis_mapped, strict=True))
    ]
    rows = zip(
        table.condition_id.tolist(),
        _subjects(population, table.person_row),
        table.stay_row.tolist(),
        table.diagnosis_row.tolist(),
        _texts(table.recorded, population.config),
        strict=True,
    )
    for number, subject, stay, diagnosis, recorded in rows:
        category = "encounter-diagnosis" if stay >= 0 else "problem-list-item"
        resource: Resource = {
            "resourceType": "Condition",
            "id": condition_id(number),
            "clinicalStatus": _concept(f"{TERMINOLOGY}condition-clinical", "active"),
            "verificationStatus": _concept(f"{TERMINOLOGY}condition-ver-status", "confirmed"),
            "category": [_concept(f"{TERMINOLOGY}condition-category", category)],
            "code": codes[diagnosis],
            "subject": subject,
        }
        if stay >= 0:
            resource["encounter"] = _encounter(visits[stay])
        resource["onsetDateTime"] = recorded
        resource["recordedDate"] = recorded
        yield resource


def medication_requests(population: Population) -> Iterator[Resource]:
    """Give every MedicationRequest; the end of its course is the end of the validity period."""
    table, stays, config = population.medications, population.stays, population.config
    codes = [
        _concept(RXNORM, one.code, text=one.name)
        if mapped
        else _concept(LOCAL_SYSTEM, local_code("RX", row), text=one.name)
        for row, (one, mapped) in enumerate(zip(DRUGS, telling(population, "fhir").drug_mapped, strict=True))
    ]
    rows = zip(
        table.medication_id.tolist(),
        _subjects(population, stays.person_row[table.stay_row]),
        stays.visit_id[table.stay_row].tolist(),
        table.drug_row.tolist(),
        table.stopped.tolist(),
        _texts(table.ordered, config),
        _texts(table.ended, config),
        strict=True,
    )
    for number, subject, visit, drug, stopped, ordered, ended in rows:
        yield {
            "resourceType": "MedicationRequest",
            "id": medication_request_id(number),
            "status": "stopped" if stopped else "completed",
            "intent": "order",
            "medicationCodeableConcept": codes[drug],
            "subject": subject,
            "encounter": _encounter(visit),
            "authoredOn": ordered,
            "dispenseRequest": {"validityPeriod": {"start": ordered, "end": ended}},
        }


def service_requests(population: Population) -> Iterator[Resource]:
    """Give every ServiceRequest; a cancelled order is revoked."""
    table, stays = population.orders, population.stays
    rows = zip(
        table.order_id.tolist(),
        _subjects(population, stays.person_row[table.stay_row]),
        stays.visit_id[table.stay_row].tolist(),
        table.panel_row.tolist(),
        table.cancelled.tolist(),
        _texts(table.ordered, population.config),
        strict=True,
    )
    for number, subject, visit, panel, cancelled, ordered in rows:
        yield {
            "resourceType": "ServiceRequest",
            "id": service_request_id(number),
            "status": "revoked" if cancelled else "completed",
            "intent": "order",
            "category": _LAB_PROCEDURE,
            "code": _concept(LOINC, PANELS[panel].loinc, display=PANELS[panel].display, text=PANELS[panel].name),
            "subject": subject,
            "encounter": _encounter(visit),
            "authoredOn": ordered,
        }


def observations(population: Population) -> Iterator[Resource]:
    """Give every laboratory Observation; one without a range has no interpretation either."""
    table, orders, stays, config = population.results, population.orders, population.stays, population.config
    stay_row, told = orders.stay_row[table.order_row], telling(population, "fhir")
    codes = [
        _concept(LOINC, one.loinc, display=one.name, text=one.name)
        if mapped
        else _concept(LOCAL_SYSTEM, local_code("LAB", row), text=one.name)
        for row, (one, mapped) in enumerate(zip(ANALYTES, told.analyte_mapped, strict=True))
    ]
    units = tuple(zip(told.units, told.decimals, strict=True))
    rows = zip(
        table.result_id.tolist(),
        orders.order_id[table.order_row].tolist(),
        _subjects(population, stays.person_row[stay_row]),
        stays.visit_id[stay_row].tolist(),
        table.analyte_row.tolist(),
        table.status.tolist(),
        told.value.tolist(),
        np.stack([told.low, told.high], axis=1).tolist(),
        _texts(orders.collected[table.order_row], config),
        _texts(told.resulted, config),
        strict=True,
    )
    for number, order, subject, visit, row, status, value, limits, drawn, issued in rows:
        resource: Resource = {
            "resourceType": "Observation",
            "id": observation_id(number),
            "basedOn": [{"reference": f"ServiceRequest/{service_request_id(order)}"}],
            "status": _STATUSES[status],
            "category": _LABORATORY,
            "code": codes[row],
            "subject": subject,
            "encounter": _encounter(visit),
            "effectiveDateTime": drawn,
            "issued": issued,
            "valueQuantity": _quantity(value, *units[row]),
        }
        low, high = limits
        if not math.isnan(low):
            flag = "L" if value < low else "H" if value > high else "N"
            resource["interpretation"] = [_concept(f"{TERMINOLOGY}v3-ObservationInterpretation", flag)]
            resource["referenceRange"] = [{"low": _quantity(low, *units[row]), "high": _quantity(high, *units[row])}]
        yield resource


RESOURCES: Final[Mapping[str, Callable[[Population], Iterator[Resource]]]] = MappingProxyType(
    {
        "Patient": patients,
        "Encounter": encounters,
        "Condition": conditions,
        "MedicationRequest": medication_requests,
        "ServiceRequest": service_requests,
        "Observation": observations,
    }
)
"""Resource type to what gives its resources, in an order in which references point backwards."""


def _concept(system: str, code: str, *, display: str = "", text: str = "") -> Resource:
    """Give a CodeableConcept of one coding."""
    coding = {"system": system, "code": code, "display": display} if display else {"system": system, "code": code}
    return {"coding": [coding], "text": text} if text else {"coding": [coding]}


def _quantity(value: float, unit: str, decimals: int) -> Resource:
    """Give a Quantity; an analyte reported without decimals is a whole number on the wire too."""
    return {"value": value if decimals else int(value), "unit": unit, "system": UCUM, "code": unit}


def _places(population: Population) -> list[list[Resource]]:
    """Give each stay's wards, in order."""
    moves, config = population.moves, population.config
    held: list[list[Resource]] = [[] for _ in range(len(population.stays))]
    rows = zip(
        moves.stay_row.tolist(),
        moves.ward_row.tolist(),
        _texts(moves.start, config),
        _texts(moves.end, config),
        strict=True,
    )
    for stay, row, start, end in rows:
        ward = WARDS[row]
        named = {"identifier": {"system": WARD_SYSTEM, "value": ward.code}, "display": ward.name}
        held[stay].append({"location": named, "status": "completed", "period": {"start": start, "end": end}})
    return held


def _us_core(name: str, category: Category) -> Resource:
    """Give the US Core extension of one demographic category."""
    coding = {"system": OMB_CATEGORY, "code": category.code, "display": category.display}
    return {
        "url": f"{US_CORE}us-core-{name}",
        "extension": [
            {"url": "ombCategory", "valueCoding": coding},
            {"url": "text", "valueString": category.source},
        ],
    }


def _encounter(visit_id: int) -> Resource:
    """Refer to a stay."""
    return {"reference": f"Encounter/{encounter_id(visit_id)}"}


def _subjects(population: Population, person_row: Integers) -> list[Resource]:
    """Refer to the patients of ``person_row``; rows of one patient share one dict."""
    references = [{"reference": f"Patient/{patient_id(number)}"} for number in population.persons.person_id.tolist()]
    return [references[row] for row in person_row.tolist()]


def _texts(instants: Instants, config: PopulationConfig) -> list[str]:
    """Spell UTC instants as FHIR does, in the hospital's offset; there must be no not-a-time."""
    offset = config.offset_text
    return [text + offset for text in np.datetime_as_string(config.local(instants), unit="s").tolist()]
