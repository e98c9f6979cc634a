"""One patient's features by the reference engine: what serving pays for every request."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta

from benchmarks.measured import Measured
from benchmarks.staging import NOW
from deployr_core.codes import ICD10CM, RXNORM, Code
from deployr_core.declared import Analyte, EdgeBins, FixedCodes, PrefixGrouping, QuantileBins
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    PatientFacts,
    Sex,
)
from deployr_core.features import CodeGroup, FeatureSpec, Group, ResultGroup
from deployr_core.vectorize import vectorize
from deployr_dev.declarations.shipped import shipped_declaration

FACTS = 2_000
_MOST_MS = 5.0
_ROUNDS = 200


def vectorizing() -> list[Measured]:
    """Measure the median of 200 vectors of one patient with 2,000 facts, 8 in 10 of them laboratory results."""
    spec = _fitted(shipped_declaration("hematocrit"))
    facts = _patient(spec)
    samples = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        vectorize(facts, spec, NOW)
        samples.append((time.perf_counter() - started) * 1000)
    value = statistics.median(samples[_ROUNDS // 10 :])
    return [
        Measured(
            name=f"vectorize, a patient with {FACTS:,} facts",
            value=round(value, 3),
            unit="ms",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_MS:g} ms",
            met=value <= _MOST_MS,
        )
    ]


def _fitted(spec: FeatureSpec) -> FeatureSpec:
    """Fill in what fitting would: four edges a test, 300 codes a group."""
    import msgspec

    def fill(group: Group) -> Group:
        if isinstance(group, ResultGroup):
            return msgspec.structs.replace(group, analytes=tuple(_with_edges(analyte) for analyte in group.analytes))
        if isinstance(group, CodeGroup):
            codes = tuple(Code(group.systems[0], code) for code in _code_values(group))
            return msgspec.structs.replace(group, codes=FixedCodes(codes=codes))
        return group

    return msgspec.structs.replace(spec, groups=tuple(fill(group) for group in spec.groups))


def _with_edges(analyte: Analyte) -> Analyte:
    import msgspec

    if not isinstance(analyte.bins, QuantileBins):
        return analyte
    return msgspec.structs.replace(analyte, bins=EdgeBins(edges=(10.0, 20.0, 30.0, 40.0)))


def _code_values(group: CodeGroup) -> list[str]:
    letters = 3 if isinstance(group.grouping, PrefixGrouping) else 4
    return [f"{number + 100:0{letters}d}" for number in range(300)]


def _patient(spec: FeatureSpec) -> PatientFacts:
    analytes = next(group.analytes for group in spec.groups if isinstance(group, ResultGroup))
    hour = timedelta(hours=1)
    labs = []
    for number in range(FACTS * 8 // 10):
        analyte, at = analytes[number % len(analytes)], NOW - hour * (2 + number % 400)
        labs.append(
            Lab(
                fact_id=str(number),
                codes=(analyte.key,),
                at=at,
                known_at=at + hour,
                value=float(number % 50),
                unit=analyte.unit,
            )
        )
    recorded = [NOW - hour * (3 + number) for number in range(FACTS // 10)]
    return PatientFacts(
        patient_id="bench",
        demographics=Demographics(birth_date=BirthDate(year=1950, month=5, day=1), sex=Sex.FEMALE),
        labs=tuple(labs),
        diagnoses=tuple(
            Diagnosis(
                fact_id=str(number),
                codes=(Code(ICD10CM, f"{100 + number % 400}.1"),),
                at=at,
                known_at=at,
                recorded_in=DiagnosisList.ENCOUNTER,
            )
            for number, at in enumerate(recorded)
        ),
        medications=tuple(
            Medication(fact_id=str(number), codes=(Code(RXNORM, f"{100 + number % 400:04d}"),), at=at, known_at=at)
            for number, at in enumerate(recorded)
        ),
    )
