"""The pieces that a feature declaration is made of: bins, codes, groupings, statistics.

Each is either a fact (``edges``, ``codes``, ``mapped``) or a wish that fitting turns into one (``quantiles``,
``learned``, ``mapping-file``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec

from deployr_core.codes import Code
from deployr_core.units import LIMIT, WIDEST


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Misspelt keys are refused: a setting that is silently ignored is a model that sees something else."""


class EdgeBins(Declared, frozen=True, kw_only=True, tag_field="kind", tag="edges"):
    """Bins cut at ascending edges: ``n`` edges make ``n + 1`` bins, the first and last without an outer bound."""

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        # 18 and 18.0, -0.0 and 0.0 are the same edge and must be the same bytes.
        msgspec.structs.force_setattr(self, "edges", tuple(float(edge) + 0.0 for edge in self.edges))
        if not all(math.isfinite(edge) for edge in self.edges):
            raise ValueError("expected bin edges that are finite numbers")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("expected bin edges in ascending order, each once")
        if len({_written(edge) for edge in self.edges}) != len(self.edges):
            raise ValueError("expected bin edges that differ in their first 12 digits")

    def labels(self) -> tuple[str, ...]:
        """Give each bin's interval as text, lowest first: ``(-inf,35)``, ``[35,47)``, ``[47,inf)``."""
        bounds = ("-inf", *(_written(edge) for edge in self.edges), "inf")
        return tuple(f"{'(' if low == '-inf' else '['}{low},{high})" for low, high in pairwise(bounds))


class QuantileBins(Declared, frozen=True, kw_only=True, tag_field="kind", tag="quantiles"):
    """A wish for ``n`` bins holding equal shares of the training rows' values."""

    n: int

    def __post_init__(self) -> None:
        if not 2 <= self.n <= 100:
            raise ValueError("expected 2 to 100 quantile bins")


class FixedCodes(Declared, frozen=True, kw_only=True, tag_field="kind", tag="codes"):
    """The codes, or after grouping the groups, that each get a feature, in the order of the features.

    A code is written as ``[system, value]``: the same value in two systems is two codes. ``weights`` are what counts
    are multiplied by in a group that counts ``tfidf``, one a code; elsewhere there are none.
    """

    codes: tuple[Code, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        expect_each_once(self.codes, "code")
        msgspec.structs.force_setattr(self, "weights", tuple(float(weight) + 0.0 for weight in self.weights))
        if self.weights and len(self.weights) != len(self.codes):
            raise ValueError("expected as many weights as codes")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ValueError("expected weights above 0")


class LearnedCodes(Declared, frozen=True, kw_only=True, tag_field="kind", tag="learned"):
    """A wish for the codes that at least ``min_patients`` training patients have, most common first."""

    min_patients: int = 5
    at_most: int = 2000

    def __post_init__(self) -> None:
        if self.min_patients < 1 or self.at_most < 1:
            raise ValueError("expected min_patients and at_most of at least 1")


class PrefixGrouping(Declared, frozen=True, kw_only=True, tag_field="kind", tag="prefix"):
    """Codes grouped by their first ``length`` characters, dots left out: ``I48.0`` cut to 4 is ``I480``."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError("expected a prefix of at least 1 character")


class MappingFile(Declared, frozen=True, kw_only=True, tag_field="kind", tag="mapping-file"):
    """A wish for codes grouped by a file: CSV with the columns ``system``, ``code``, ``group``; read when fitting."""

    name: str
    path: str


class MappedCode(NamedTuple):
    """One line of a mapping: this code belongs to that group."""

    system: str
    code: str
    group: str


class MappedCodes(Declared, frozen=True, kw_only=True, tag_field="kind", tag="mapped"):
    """Codes grouped by a mapping, which the declaration carries whole; ``sha256`` is of the file it came from.

    A group is a code of the system ``urn:deployr:group:<name>``.
    """

    name: str
    sha256: str
    codes: tuple[MappedCode, ...]

    def __post_init__(self) -> None:
        expect_each_once([line[:2] for line in self.codes], f"code of the mapping {self.name!r}")

    @property
    def system(self) -> str:
        """The system of the groups."""
        return f"urn:deployr:group:{self.name}"


Grouping = PrefixGrouping | MappingFile | MappedCodes


class CountKind(StrEnum):
    """How a code group counts: each fact; whether there was one; or each fact times its code's weight.

    A weight is the inverse document frequency on the training rows, ``ln((1 + rows) / (1 + rows with it)) + 1``.

    Source: scikit-learn user guide, "Tf-idf term weighting" (smooth idf, without normalisation).
    """

    COUNT = "count"
    BINARY = "binary"
    TFIDF = "tfidf"


class Statistic(StrEnum):
    """What is computed from one test's results in the window; all are 0.0 without a result, but ``missing``.

    ``bins``: how many results fell in each bin. ``last``: the result of the latest specimen; of several at one
    instant the one known latest, then the largest. ``first``: the earliest, then the one known earliest, then the
    smallest. ``mean``: exact, whatever the order of summing. ``count``: how many. ``slope``: ``(last - first) / days``
    between the two, 0.0 within one second. ``hours_since``: from the last specimen to ``as_of``. ``missing``: 1.0 if
    there was no result. Times between are counted in whole seconds of the clock.
    """

    BINS = "bins"
    LAST = "last"
    FIRST = "first"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    SLOPE = "slope"
    HOURS_SINCE = "hours_since"
    MISSING = "missing"


class Analyte(Declared, frozen=True, kw_only=True):
    """One test: its code, and the unit that every result is converted to before anything else.

    ``also``: other codes under which laboratories report the same test, ``[system, value]`` each. ``plausible``: the
    lowest and the highest value that a living patient can have, in ``unit``; what lies outside is a fault of the
    record, such as a value in another unit than it says, and counts as no result, in training as in service.
    """

    system: str
    code: str
    name: str
    unit: str
    also: tuple[Code, ...] = ()
    bins: EdgeBins | QuantileBins | None = None
    plausible: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        expect_each_once(self.keys, f"code of {self.name!r}")
        if self.plausible is not None and not WIDEST[0] <= self.plausible[0] < self.plausible[1] <= WIDEST[1]:
            raise ValueError(
                f"expected plausible of {self.name!r} as two numbers, the lower one first, both under {LIMIT:.0f}"
            )

    @property
    def key(self) -> Code:
        """The code that names the feature."""
        return Code(self.system, self.code)

    @property
    def plausible_range(self) -> tuple[float, float]:
        """The lowest and the highest plausible value, both included."""
        return self.plausible or WIDEST

    @property
    def keys(self) -> tuple[Code, ...]:
        """All codes that facts may carry."""
        return (self.key, *self.also)


def expect_each_once(things: Sequence[object], what: str) -> None:
    """Refuse repetition.

    Raises:
        ValueError: something is there twice; the message names ``what``.
    """
    if len(set(things)) != len(things):
        raise ValueError(f"expected each {what} once")


def _written(edge: float) -> str:
    return f"{edge:.12g}"
