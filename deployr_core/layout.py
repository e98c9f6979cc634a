"""Where each feature of a fitted declaration stands, and the look-ups that find it from a fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from deployr_core.codes import Code
from deployr_core.features import (
    AgeGroup,
    Analyte,
    DiagnosisGroup,
    EdgeBins,
    EthnicityGroup,
    FeatureSpec,
    FixedCodes,
    LabGroup,
    LabStatistic,
    MedicationGroup,
    RaceGroup,
    SexGroup,
)
from deployr_core.units import CONVERSIONS, conversion_factor


class SpecNotFitted(ValueError):
    """The declaration still holds wishes; the message names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyteLayout:
    """One analyte's first column for each statistic, its bin edges and the unit factors already looked up."""

    analyte: Analyte
    edges: tuple[float, ...]
    columns: dict[LabStatistic, int]
    factors: dict[str, float | None]

    def factor(self, unit: str) -> float | None:
        """Give the factor to the declared unit, or None without a reviewed conversion; remembered per spelling."""
        if unit not in self.factors:
            if len(self.factors) > 256:
                self.factors.clear()
            self.factors[unit] = conversion_factor(self.analyte.key, unit=unit, wanted=self.analyte.unit)
        return self.factors[unit]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLayout:
    """A code group's columns by (grouped) code, and its window."""

    group: DiagnosisGroup | MedicationGroup
    columns: dict[Code, int]
    prefix_length: int | None
    lookback: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class LabLayout:
    """A laboratory group's analytes by code, and its window."""

    group: LabGroup
    analytes: dict[Code, AnalyteLayout]
    lookback: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryLayout:
    """A demographic group's first column; the rest follow in the declared order."""

    group: AgeGroup | SexGroup | RaceGroup | EthnicityGroup
    first: int
    edges: tuple[float, ...] = ()


GroupLayout = CategoryLayout | CodeLayout | LabLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureLayout:
    """The columns of a fitted declaration: ``names[i]`` and ``groups_of[i]`` tell feature ``i`` and its group."""

    spec_digest: str
    names: tuple[str, ...]
    groups_of: tuple[str, ...]
    groups: tuple[GroupLayout, ...]


@lru_cache(maxsize=64)
def layout_of(spec: FeatureSpec) -> FeatureLayout:
    """Lay out a fitted declaration; computed once per declaration.

    Raises:
        SpecNotFitted: something is still to be learned from training rows.
    """
    unfitted = spec.unfitted()
    if unfitted:
        raise SpecNotFitted(f"expected a fitted feature declaration; still to be learned: {', '.join(unfitted)}")
    names: list[str] = []
    groups_of: list[str] = []
    layouts: list[GroupLayout] = []
    for group in spec.groups:
        layouts.append(_lay_out(group, names))
        groups_of += [group.name] * (len(names) - len(groups_of))
    return FeatureLayout(
        spec_digest=spec.digest(), names=tuple(names), groups_of=tuple(groups_of), groups=tuple(layouts)
    )


def grouped_code(code: Code, prefix_length: int | None) -> Code:
    """Cut a code to its first ``prefix_length`` characters, not counting dots: ``I48.0`` to 4 is ``I480``."""
    return code if prefix_length is None else Code(code.system, code.value.replace(".", "")[:prefix_length])


def _labels(codes: Sequence[Code]) -> list[str]:
    """Name codes by their value; where two systems have the same one, by system and value."""
    times = Counter(code.value for code in codes)
    return [code.value if times[code.value] == 1 else f"{code.system}|{code.value}" for code in codes]


def _lay_out(group: object, names: list[str]) -> GroupLayout:
    first = len(names)
    match group:
        case AgeGroup():
            if isinstance(group.bins, EdgeBins):
                names += [f"{group.name}/{label}" for label in group.bins.labels()]
                return CategoryLayout(group=group, first=first, edges=group.bins.edges)
            raise SpecNotFitted("expected ages cut at edges")
        case SexGroup() | RaceGroup() | EthnicityGroup():
            names += [f"{group.name}/{category}" for category in group.categories]
            return CategoryLayout(group=group, first=first)
        case DiagnosisGroup() | MedicationGroup():
            codes = group.codes.codes if isinstance(group.codes, FixedCodes) else ()
            names += [f"{group.name}/{label}" for label in _labels(codes)]
            return CodeLayout(
                group=group,
                columns={code: first + i for i, code in enumerate(codes)},
                prefix_length=group.prefix_length if isinstance(group, DiagnosisGroup) else None,
                lookback=timedelta(days=group.lookback_days),
            )
        case LabGroup():
            labels = _labels([analyte.key for analyte in group.analytes])
            analytes = {
                analyte.key: _lay_out_analyte(group, analyte, label, names)
                for analyte, label in zip(group.analytes, labels, strict=True)
            }
            return LabLayout(group=group, analytes=analytes, lookback=timedelta(days=group.lookback_days))
        case _:
            raise TypeError(f"expected a feature group, got {type(group).__name__}")


def _lay_out_analyte(group: LabGroup, analyte: Analyte, label: str, names: list[str]) -> AnalyteLayout:
    columns = {}
    edges = analyte.bins.edges if isinstance(analyte.bins, EdgeBins) else ()
    for statistic in group.statistics:
        columns[statistic] = len(names)
        stem = f"{group.name}/{label}/{statistic.value}"
        if statistic is LabStatistic.BINS and isinstance(analyte.bins, EdgeBins):
            names += [stem + interval for interval in analyte.bins.labels()]
        else:
            names.append(stem)
    units = {analyte.unit} | {source for key, source, _ in CONVERSIONS if key == analyte.key}
    factors = {unit: conversion_factor(analyte.key, unit=unit, wanted=analyte.unit) for unit in units}
    return AnalyteLayout(analyte=analyte, edges=edges, columns=columns, factors=factors)
