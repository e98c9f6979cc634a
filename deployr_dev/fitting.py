"""Learning what a declaration leaves open, from training rows alone: bin edges and the codes worth a feature."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.codes import Code
from deployr_core.facts import Diagnosis, Lab, Medication, PatientFacts
from deployr_core.features import (
    DiagnosisGroup,
    EdgeBins,
    FeatureSpec,
    FixedCodes,
    LabGroup,
    LearnedCodes,
    MedicationGroup,
    QuantileBins,
)
from deployr_core.layout import grouped_code
from deployr_core.units import canonical_value, conversion_factor


def fit(spec: FeatureSpec, patients_with_index_times: Iterable[tuple[PatientFacts, Sequence[datetime]]]) -> FeatureSpec:
    """Fit a declaration to training rows; what is already fixed stays as it is.

    Only facts count that at least one training row of their patient could see: known before its index time and
    within the group's window, as `deployr_core.vectorize` has it. Each fact counts once, however many rows see it.

    Bin edges are the values at the shares 1/n, 2/n ... of the seen results in the declared unit, each edge once;
    an analyte without any gets a single bin. Codes are those that enough distinct patients have, the most common
    first and among equals by code.

    Args:
        spec: what to learn.
        patients_with_index_times: each training patient once, with the aware index times of their rows. Read once,
            one patient at a time; the order does not matter.
    """
    learners = [_learner(group) for group in spec.groups]
    for facts, index_times in patients_with_index_times:
        ascending = sorted(index_times)
        for learner in learners:
            if learner is not None:
                learner.see(facts, ascending)
    groups = tuple(
        group if learner is None else learner.fitted() for group, learner in zip(spec.groups, learners, strict=True)
    )
    return msgspec.structs.replace(spec, groups=groups)


def quantile_edges(values: NDArray[np.float64], n: int) -> tuple[float, ...]:
    """Give the edges of ``n`` bins with about equal shares of the values, ascending, each once.

    An edge is one of the values, the smallest that at least k/n of them do not exceed; as a bin is ``[edge, next)``,
    that value itself lies in the bin above. Ties leave fewer bins; no values leave none.

    Source: R. J. Hyndman and Y. Fan (1996), Am. Stat. 50:361-365, definition 1, doi:10.2307/2684934.
    """
    if values.size == 0:
        return ()
    edges = np.quantile(values, np.arange(1, n) / n, method="inverted_cdf")
    return tuple(float(edge) + 0.0 for edge in np.unique(edges))  # + 0.0 turns -0.0 into 0.0


def most_common(patients_by_code: Counter[Code], wish: LearnedCodes) -> tuple[Code, ...]:
    """Give the codes that enough patients have, most common first, ties by code, at most as many as wished."""
    enough = [(code, count) for code, count in patients_by_code.items() if count >= wish.min_patients]
    enough.sort(key=lambda item: (-item[1], item[0]))
    return tuple(code for code, _ in enough[: wish.at_most])


def is_seen(fact: Lab | Diagnosis | Medication, ascending: Sequence[datetime], lookback: timedelta) -> bool:
    """True when a row at one of the ``ascending`` index times sees the fact within ``lookback``.

    The first row after it was known is the one whose window reaches back least far past it, so it decides.
    """
    after = bisect_right(ascending, max(fact.at, fact.known_at))
    return after < len(ascending) and ascending[after] <= fact.at + lookback


class _Learner(Protocol):
    """Gathers from one patient after another, then gives the fitted group."""

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        """Take in a patient with the index times of their rows."""

    def fitted(self) -> DiagnosisGroup | MedicationGroup | LabGroup:
        """Give the group with everything learned."""


def _learner(group: object) -> _Learner | None:
    match group:
        case DiagnosisGroup(codes=LearnedCodes() as wish) | MedicationGroup(codes=LearnedCodes() as wish):
            return _CodeLearner(group, wish)
        case LabGroup() if any(isinstance(analyte.bins, QuantileBins) for analyte in group.analytes):
            return _LabLearner(group)
        case _:
            return None


class _CodeLearner:
    def __init__(self, group: DiagnosisGroup | MedicationGroup, wish: LearnedCodes) -> None:
        self._group = group
        self._wish = wish
        self._systems = frozenset(group.systems)
        self._prefix = group.prefix_length if isinstance(group, DiagnosisGroup) else None
        self._lookback = timedelta(days=group.lookback_days)
        self._patients_by_code: Counter[Code] = Counter()

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        self._patients_by_code.update(
            {
                grouped_code(code, self._prefix)
                for fact in self._facts_of(facts)
                if is_seen(fact, ascending, self._lookback)
                for code in fact.codes
                if code.system in self._systems
            }
        )

    def fitted(self) -> DiagnosisGroup | MedicationGroup:
        codes = FixedCodes(codes=most_common(self._patients_by_code, self._wish))
        return msgspec.structs.replace(self._group, codes=codes)

    def _facts_of(self, facts: PatientFacts) -> Iterable[Diagnosis | Medication]:
        if isinstance(self._group, DiagnosisGroup):
            lists = self._group.recorded_in
            return (fact for fact in facts.diagnoses if fact.recorded_in in lists)
        return facts.medications


class _LabLearner:
    def __init__(self, group: LabGroup) -> None:
        self._group = group
        self._lookback = timedelta(days=group.lookback_days)
        self._units: dict[Code, str] = {a.key: a.unit for a in group.analytes if isinstance(a.bins, QuantileBins)}
        self._values: dict[Code, array[float]] = {key: array("d") for key in self._units}

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        for lab in facts.labs:
            keys = {code for code in lab.codes if code in self._units}
            if not keys or lab.value is None:
                continue
            if not is_seen(lab, ascending, self._lookback):
                continue
            for key in keys:
                factor = conversion_factor(key, unit=lab.unit, wanted=self._units[key])
                value = None if factor is None else canonical_value(lab.value, factor)
                if value is not None:
                    self._values[key].append(value)

    def fitted(self) -> LabGroup:
        analytes = tuple(
            msgspec.structs.replace(
                analyte,
                bins=EdgeBins(
                    edges=quantile_edges(np.array(self._values[analyte.key], dtype=np.float64), analyte.bins.n)
                ),
            )
            if isinstance(analyte.bins, QuantileBins)
            else analyte
            for analyte in self._group.analytes
        )
        return msgspec.structs.replace(self._group, analytes=analytes)
