"""Learning what a declaration leaves open, from training rows alone: bin edges and the codes worth a feature."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from math import log
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.codes import Code
from deployr_core.declared import CountKind, EdgeBins, FixedCodes, LearnedCodes, MappingFile, QuantileBins
from deployr_core.facts import PatientFacts
from deployr_core.features import CodeGroup, FeatureSpec, Group, ResultGroup
from deployr_core.layout import code_groups_of
from deployr_core.units import canonical_value, conversion_factor
from deployr_core.vectorize import coded_facts, result_facts


def fit(spec: FeatureSpec, patients_with_index_times: Iterable[tuple[PatientFacts, Sequence[datetime]]]) -> FeatureSpec:
    """Fit a declaration to training rows; what is already fixed stays as it is.

    Only facts count that at least one training row of their patient could see: known before its index time and
    within the group's window, as `deployr_core.vectorize` has it. Each fact counts once, however many rows see it.

    Bin edges are the values at the shares 1/n, 2/n ... of the seen results in the declared unit, each edge once;
    an analyte without any gets a single bin. Codes are those that enough distinct patients have, the most common
    first and among equals by code. Their weights, where the group counts tfidf, are inverse document frequencies over
    the training rows (see `inverse_document_frequency`).

    Args:
        spec: what to learn.
        patients_with_index_times: each training patient once, with the aware index times of their rows. Read once,
            one patient at a time; the order does not matter.

    Raises:
        ValueError: a mapping file is still to be read.
    """
    unread = [group.name for group in spec.groups if isinstance(getattr(group, "grouping", None), MappingFile)]
    if unread:
        raise ValueError(f"expected the mapping files of {', '.join(unread)} to be read before fitting")
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


def learns(group: Group) -> bool:
    """True of a group that leaves something open, which training rows decide."""
    return _learner(group) is not None


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


def inverse_document_frequency(*, rows: int, rows_with_code: int) -> float:
    """Give ``ln((1 + rows) / (1 + rows_with_code)) + 1``: how much a code tells by being rare; at least 1.

    Source: scikit-learn user guide, "Tf-idf term weighting", ``smooth_idf=True``.
    """
    return log((1 + rows) / (1 + rows_with_code)) + 1.0


def rows_that_see(at: datetime, known_at: datetime, ascending: Sequence[datetime], lookback: timedelta) -> range:
    """Give which of the ``ascending`` index times see a fact: those after it was known, up to ``at + lookback``."""
    first = bisect_right(ascending, max(at, known_at))
    if first == len(ascending) or ascending[first] - at > lookback:
        return range(first, first)
    return range(first, bisect_right(ascending, at + lookback))


class _Learner(Protocol):
    """Gathers from one patient after another, then gives the fitted group."""

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        """Take in one patient; ``ascending`` are the index times of their rows."""

    def fitted(self) -> Group:
        """Give the group with what was learned."""


def _learner(group: Group) -> _Learner | None:
    if isinstance(group, CodeGroup) and isinstance(group.codes, LearnedCodes):
        return _CodeLearner(group, group.codes)
    if isinstance(group, ResultGroup) and any(isinstance(analyte.bins, QuantileBins) for analyte in group.analytes):
        return _ResultLearner(group)
    return None


class _CodeLearner:
    def __init__(self, group: CodeGroup, wish: LearnedCodes) -> None:
        self._group = group
        self._wish = wish
        self._groups = code_groups_of(group)
        self._lookback = timedelta(days=group.lookback_days)
        self._patients_by_code: Counter[Code] = Counter()
        self._rows_by_code: Counter[Code] = Counter()
        self._rows = 0

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        rows_of_code: dict[Code, set[int]] = {}
        for fact in coded_facts(self._group, facts):
            rows = rows_that_see(fact.at, fact.known_at, ascending, self._lookback)
            for code in fact.codes if rows else ():
                grouped = self._groups.of(code)
                if grouped is not None:
                    rows_of_code.setdefault(grouped, set()).update(rows)
        self._patients_by_code.update(rows_of_code.keys())
        self._rows_by_code.update({code: len(rows) for code, rows in rows_of_code.items()})
        self._rows += len(ascending)

    def fitted(self) -> CodeGroup:
        codes = most_common(self._patients_by_code, self._wish)
        weights: tuple[float, ...] = ()
        if self._group.count is CountKind.TFIDF:
            weights = tuple(
                inverse_document_frequency(rows=self._rows, rows_with_code=self._rows_by_code[code]) for code in codes
            )
        return msgspec.structs.replace(self._group, codes=FixedCodes(codes=codes, weights=weights))


class _ResultLearner:
    def __init__(self, group: ResultGroup) -> None:
        self._group = group
        self._lookback = timedelta(days=group.lookback_days)
        wished = [analyte for analyte in group.analytes if isinstance(analyte.bins, QuantileBins)]
        self._analyte_of = {key: analyte for analyte in wished for key in analyte.keys}
        self._values: dict[Code, array[float]] = {analyte.key: array("d") for analyte in wished}

    def see(self, facts: PatientFacts, ascending: Sequence[datetime]) -> None:
        for fact in result_facts(self._group, facts):
            analytes = {
                self._analyte_of[code].key: self._analyte_of[code] for code in fact.codes if code in self._analyte_of
            }
            if not analytes or fact.value is None:
                continue
            if not rows_that_see(fact.at, fact.known_at, ascending, self._lookback):
                continue
            for key, analyte in analytes.items():
                code = next(code for code in analyte.keys if code in fact.codes)
                factor = conversion_factor(code, unit=fact.unit, wanted=analyte.unit)
                value = None if factor is None else canonical_value(fact.value, factor, analyte.plausible_range)
                if value is not None:
                    self._values[key].append(value)

    def fitted(self) -> ResultGroup:
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
