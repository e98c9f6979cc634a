"""How one side tells the results: the same facts, through the infrastructure between them and the reader."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from mock_emr.population.columns import Flags, Floats, Instants, Integers, Population
from mock_emr.population.config import SECONDS_PER_HOUR
from mock_emr.population.diagnoses import DIAGNOSES
from mock_emr.population.drugs import DRUGS
from mock_emr.population.labs import ANALYTES, CBC
from mock_emr.population.shift import OTHER_UNITS, InfrastructureShift, Side
from mock_emr.population.wards import WARDS

LOCAL_SYSTEM: Final = "urn:deployr:synthetic:local"


@dataclass(frozen=True, kw_only=True, eq=False)
class Telling:
    """What one side says of the results, by row of `LabResults`, and in which codes and units.

    Args:
        value: numbers as that side gives them.
        low: lower ends of the ranges, NaN for none.
        high: upper ends.
        resulted: when that side has them.
        units: UCUM code for each of `labs.ANALYTES`.
        decimals: digits after the point, for each of them.
        analyte_mapped: whether that side has the LOINC code, for each of them.
        diagnosis_mapped: whether it has the ICD-10-CM code, for each of `DIAGNOSES`.
        drug_mapped: whether it has the RxNorm code, for each of `DRUGS`.
    """

    value: Floats
    low: Floats
    high: Floats
    resulted: Instants
    units: tuple[str, ...]
    decimals: tuple[int, ...]
    analyte_mapped: tuple[bool, ...]
    diagnosis_mapped: tuple[bool, ...]
    drug_mapped: tuple[bool, ...]


def telling(population: Population, side: Side) -> Telling:
    """Give what a side says; with no knob on, both say the facts as they are."""
    shift, seed = population.config.shift, population.config.seed
    results, orders = population.results, population.orders
    value, low, high = results.value, results.low, results.high
    resulted = orders.resulted[results.order_row]
    if side == "fhir" and shift.late_share:
        luck = _luck(results.result_id, f"late {seed}")
        hours = shift.late_hours * (0.5 + luck / shift.late_share)
        late = np.where(luck < shift.late_share, hours * SECONDS_PER_HOUR, 0).astype("timedelta64[s]")
        resulted = resulted + late
    if side == "fhir" and shift.analyser_ward:
        value = np.where(_through_new_analyser(population), value * shift.analyser_factor, value)
    units = [analyte.unit for analyte in ANALYTES]
    decimals = [analyte.decimals for analyte in ANALYTES]
    factors = np.ones(len(ANALYTES))
    if side == shift.units_side:
        for row, analyte in enumerate(ANALYTES):
            if analyte.name in shift.other_units:
                unit, factors[row], decimals[row] = OTHER_UNITS[analyte.name]
                units[row] = unit if shift.units_labelled else analyte.unit
    if value is not results.value or (factors != 1).any():
        factor, digits = factors[results.analyte_row], np.array(decimals)[results.analyte_row]
        value, low, high = (_rounded(numbers * factor, digits) for numbers in (value, low, high))
    here = side == shift.unmapped_side
    return Telling(
        value=value,
        low=low,
        high=high,
        resulted=resulted,
        units=tuple(units),
        decimals=tuple(decimals),
        analyte_mapped=_mapped("analyte", len(ANALYTES), shift.unmapped_analytes * here, seed),
        diagnosis_mapped=_mapped("diagnosis", len(DIAGNOSES), shift.unmapped_diagnoses * here, seed),
        drug_mapped=_mapped("drug", len(DRUGS), shift.unmapped_drugs * here, seed),
    )


def local_code(kind: str, row: int) -> str:
    """Name a code that is not mapped: ``LAB-003``, ``DX-017``, ``RX-021``."""
    return f"{kind}-{row:03d}"


def with_missing(
    resources: Callable[[Population], Iterator[dict[str, Any]]], population: Population, name: str
) -> Iterator[dict[str, Any]]:
    """Give the resources of a type without the elements that are missing over FHIR, each in its share of them."""
    shift = population.config.shift
    elements = [path.partition(".")[2] for path in shift.missing_elements if path.startswith(f"{name}.")]
    drop = partial(_without, elements=elements, shift=shift, seed=population.config.seed)
    return map(drop, resources(population)) if elements else resources(population)


def _without(resource: dict[str, Any], *, elements: list[str], shift: InfrastructureShift, seed: int) -> dict[str, Any]:
    for element in elements:
        if zlib.crc32(f"{seed} {element} {resource['id']}".encode()) < shift.missing_share * 2**32:
            resource.pop(element, None)
    return resource


def _through_new_analyser(population: Population) -> Flags:
    """Decide which results went through the new analyser: chemistry drawn on its ward from its week on."""
    shift, moves, orders = population.config.shift, population.moves, population.orders
    ward_row = [ward.code for ward in WARDS].index(shift.analyser_ward)
    first = population.config.week_start(shift.analyser_from_week)
    # A stay is on each ward once at most, so the ward's part of a stay is one interval.
    entered = np.full(len(population.stays), np.datetime64("NaT", "s"))
    left = entered.copy()
    there = moves.ward_row == ward_row
    entered[moves.stay_row[there]], left[moves.stay_row[there]] = moves.start[there], moves.end[there]
    drawn, stay_row = orders.collected, orders.stay_row
    new = (drawn >= entered[stay_row]) & (drawn < left[stay_row]) & (drawn >= first) & (orders.panel_row != CBC)
    return np.asarray(new[population.results.order_row])


def _mapped(kind: str, count: int, share: float, seed: int) -> tuple[bool, ...]:
    """Choose which codes are mapped: all but the nearest number to the share, the same for all blocks of a seed."""
    order = np.argsort(_luck(np.arange(count), f"{kind} {seed}"))
    unmapped = set(order[: round(share * count)].tolist())
    return tuple(row not in unmapped for row in range(count))


def _rounded(numbers: Floats, decimals: Integers) -> Floats:
    """Round to a number of digits for each; NaN stays."""
    scale = 10.0**decimals
    return np.asarray(np.round(numbers * scale) / scale)


def _luck(numbers: Integers, knob: str) -> Floats:
    """Give a number in [0, 1) for each id, always the same for an id and a knob, so that no chunking can matter.

    Source: Steele, Lea and Flood (2014), SplitMix64's finaliser, doi:10.1145/2660193.2660195.
    """
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(zlib.crc32(knob.encode()) << 20)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) / 2.0**64)
