"""The feature declaration: what a model sees, written down once, as data, for both engines.

A declaration is JSON; these types are its schema (`json_schema`). What has to be learned from training rows
(quantile bins, the codes worth a feature) is written as a wish, ``{"kind": "quantiles", "n": 5}``, and becomes
a fact, ``{"kind": "edges", "edges": [...]}``, when `deployr_dev.fitting` fits it. Only a fitted declaration can
be deployed.

Three rules hold everywhere:

- Intervals include their start and exclude their end: a bin is ``[low, high)``, so a value equal to an edge is in
  the bin above it; a window is ``[as_of - lookback, as_of)``.
- A fact is seen only if it was known strictly before ``as_of``, and happened within the window.
- An absent value is 0.0. Where 0 and absent must be told apart, declare the ``missing`` indicator.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

import msgspec

from deployr_core.codes import Code
from deployr_core.facts import DiagnosisList, Sex

SCHEMA_VERSION = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class DeclarationInvalid(ValueError):
    """The declaration does not say what it must; the message names the place and what was expected there."""


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Misspelt keys are refused: a setting that is silently ignored is a model that sees something else."""


class EdgeBins(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="edges"):
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


class QuantileBins(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="quantiles"):
    """A wish for ``n`` bins holding equal shares of the training rows' values."""

    n: int

    def __post_init__(self) -> None:
        if not 2 <= self.n <= 100:
            raise ValueError("expected 2 to 100 quantile bins")


class FixedCodes(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="codes"):
    """The codes, or after grouping the groups, that each get a feature, in the order of the features.

    A code is written as ``[system, value]``: the same value in two systems is two codes.
    """

    codes: tuple[Code, ...]

    def __post_init__(self) -> None:
        if len(set(self.codes)) != len(self.codes):
            raise ValueError("expected each code once")


class LearnedCodes(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="learned"):
    """A wish for the codes that at least ``min_patients`` training patients have, most common first."""

    min_patients: int = 5
    at_most: int = 2000

    def __post_init__(self) -> None:
        if self.min_patients < 1 or self.at_most < 1:
            raise ValueError("expected min_patients and at_most of at least 1")


class AgeGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="age"):
    """Age in completed years (see `BirthDate.age_in_years`), one indicator a bin; an unknown age sets none."""

    name: str = "age"
    bins: EdgeBins | QuantileBins

    def __post_init__(self) -> None:
        if not isinstance(self.bins, EdgeBins):
            raise ValueError(f"expected bins of kind edges in {self.name!r}: ages are cut where people agree to")  # noqa: TRY004


class SexGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="sex"):
    """Administrative gender, one indicator a category; any other sets none."""

    name: str = "sex"
    categories: tuple[Sex, ...] = (Sex.FEMALE, Sex.MALE)

    def __post_init__(self) -> None:
        _expect_each_once(self.categories, f"category of {self.name!r}")


class RaceGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="race"):
    """OMB race categories, one indicator a category code; several may be set, and none if unknown."""

    name: str = "race"
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        _expect_each_once(self.categories, f"category of {self.name!r}")


class EthnicityGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="ethnicity"):
    """OMB ethnicity categories, one indicator a category code; none is set if unknown."""

    name: str = "ethnicity"
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        _expect_each_once(self.categories, f"category of {self.name!r}")


class CountKind(StrEnum):
    """How a code group counts: each fact, or only whether there was one."""

    COUNT = "count"
    BINARY = "binary"


class DiagnosisGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="diagnoses"):
    """Diagnoses recorded in the window, counted per code.

    ``systems`` are the coding systems (URIs) whose codes count. ``prefix_length`` cuts a code to its first
    characters (dots left out of the cut's length: ``I48.0`` cut to 3 is ``I48``); None leaves it whole.
    """

    name: str
    recorded_in: tuple[DiagnosisList, ...]
    systems: tuple[str, ...]
    codes: FixedCodes | LearnedCodes
    lookback_days: int
    prefix_length: int | None = None
    count: CountKind = CountKind.COUNT

    def __post_init__(self) -> None:
        _check_codes(self)
        if self.prefix_length is None:
            return
        if self.prefix_length < 1:
            raise ValueError(f"expected a prefix_length of {self.name!r} of at least 1")
        if isinstance(self.codes, FixedCodes) and any(
            len(code.value) > self.prefix_length or "." in code.value for code in self.codes.codes
        ):
            raise ValueError(
                f"expected codes of {self.name!r} of at most {self.prefix_length} characters, without dots"
            )


class MedicationGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="medications"):
    """Medication orders written in the window, counted per code of ``systems`` (URIs)."""

    name: str
    systems: tuple[str, ...]
    codes: FixedCodes | LearnedCodes
    lookback_days: int
    count: CountKind = CountKind.COUNT

    def __post_init__(self) -> None:
        _check_codes(self)


class LabStatistic(StrEnum):
    """What is computed from an analyte's results in the window; all but the last two are 0.0 without a result.

    ``bins``: how many results fell in each bin. ``last``: the result of the latest specimen; of several at one
    instant the one known latest, then the largest. ``mean``: over results rounded to a millionth of the unit and
    summed exactly, so that no order of summing changes a bit. ``count``: how many. ``missing``: 1.0 if none.
    """

    BINS = "bins"
    LAST = "last"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    MISSING = "missing"


class Analyte(_Declared, frozen=True, kw_only=True):
    """One laboratory test: its code, and the unit that every result is converted to before anything else."""

    system: str
    code: str
    name: str
    unit: str
    bins: EdgeBins | QuantileBins | None = None

    @property
    def key(self) -> Code:
        """The code as facts carry it."""
        return Code(self.system, self.code)


class LabGroup(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="labs"):
    """Laboratory results whose specimen was taken in the window. A unit without a reviewed conversion is no result."""

    name: str
    analytes: tuple[Analyte, ...]
    statistics: tuple[LabStatistic, ...]
    lookback_days: int

    def __post_init__(self) -> None:
        if LabStatistic.BINS in self.statistics and any(analyte.bins is None for analyte in self.analytes):
            raise ValueError(f"expected bins for every analyte of {self.name!r}, which counts results per bin")
        if len({analyte.key for analyte in self.analytes}) != len(self.analytes):
            raise ValueError(f"expected each analyte of {self.name!r} once")
        _expect_each_once(self.statistics, f"statistic of {self.name!r}")


Group = AgeGroup | SexGroup | RaceGroup | EthnicityGroup | DiagnosisGroup | MedicationGroup | LabGroup
WindowedGroup = DiagnosisGroup | MedicationGroup | LabGroup


class FeatureSpec(_Declared, frozen=True, kw_only=True, cache_hash=True):
    """A whole declaration: groups in the order of their features.

    Raises:
        ValueError: a name that is not lower_snake_case or is used twice, or a look-back outside 1 to 36,500 days.
    """

    schema_version: int
    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not self.groups:
            raise ValueError("expected at least one feature group")
        names = [group.name for group in self.groups]
        for name in names:
            if not _NAME.match(name):
                raise ValueError(f"expected a lower_snake_case group name, got {name!r}")
        if len(set(names)) != len(names):
            raise ValueError("expected each group name once")
        for group in self.groups:
            if isinstance(group, WindowedGroup) and not 1 <= group.lookback_days <= 36_500:
                raise ValueError(f"expected lookback_days of {group.name!r} from 1 to 36500")

    @property
    def is_fitted(self) -> bool:
        """True when nothing is left to be learned, so that the features are fixed."""
        return not self.unfitted()

    def unfitted(self) -> tuple[str, ...]:
        """Name what still has to be learned from training rows, as ``group`` or ``group/code``."""
        found = []
        for group in self.groups:
            if isinstance(group, DiagnosisGroup | MedicationGroup) and isinstance(group.codes, LearnedCodes):
                found.append(group.name)
            if isinstance(group, LabGroup):
                found += [f"{group.name}/{a.code}" for a in group.analytes if isinstance(a.bins, QuantileBins)]
        return tuple(found)

    def longest_lookback(self) -> timedelta:
        """Give how far back the windows reach."""
        days = [group.lookback_days for group in self.groups if isinstance(group, WindowedGroup)]
        return timedelta(days=max(days, default=0))

    def to_json(self) -> bytes:
        """Give the declaration's canonical bytes: sorted keys, no spaces. Its digest is taken over these."""
        return msgspec.json.encode(self, order="sorted")

    def digest(self) -> str:
        """Give the SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.to_json()).hexdigest()


def parse_feature_spec(source: bytes | str) -> FeatureSpec:
    """Read a declaration from JSON.

    Raises:
        DeclarationInvalid: not JSON, a key missing, misspelt or of the wrong type, or a value that cannot be.
    """
    try:
        spec = msgspec.json.decode(source, type=FeatureSpec)
        json.loads(source, object_pairs_hook=_refuse_repeated_keys)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeclarationInvalid(f"feature declaration: {error}") from None
    return spec


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a declaration, for editors and for people who write one by hand."""
    return msgspec.json.schema(FeatureSpec)


def _written(edge: float) -> str:
    return f"{edge:.12g}"


def _expect_each_once(things: Sequence[object], what: str) -> None:
    if len(set(things)) != len(things):
        raise ValueError(f"expected each {what} once")


def _check_codes(group: DiagnosisGroup | MedicationGroup) -> None:
    _expect_each_once(group.systems, f"system of {group.name!r}")
    if isinstance(group.codes, FixedCodes) and any(code.system not in group.systems for code in group.codes.codes):
        raise ValueError(f"expected codes of {group.name!r} to be of its systems")


def _refuse_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise DeclarationInvalid(f"feature declaration: expected the key {key!r} once, got it twice in one object")
    return dict(pairs)
