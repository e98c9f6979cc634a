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
import inspect
import json
import re
from datetime import timedelta
from typing import Any

import msgspec

from deployr_core.codes import Code
from deployr_core.declared import (
    Analyte,
    CountKind,
    Declared,
    EdgeBins,
    FixedCodes,
    Grouping,
    LearnedCodes,
    MappedCodes,
    MappingFile,
    PrefixGrouping,
    QuantileBins,
    Statistic,
    expect_each_once,
)
from deployr_core.facts import DiagnosisList, Sex

SCHEMA_VERSION = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class DeclarationInvalid(ValueError):
    """The declaration does not say what it must; the message names the place and what was expected there."""


class AgeGroup(Declared, frozen=True, kw_only=True, tag_field="kind", tag="age"):
    """Age in completed years (see `BirthDate.age_in_years`), one indicator a bin; an unknown age sets none."""

    name: str = "age"
    bins: EdgeBins | QuantileBins

    def __post_init__(self) -> None:
        if not isinstance(self.bins, EdgeBins):
            raise ValueError(f"expected bins of kind edges in {self.name!r}: ages are cut where people agree to")  # noqa: TRY004


class SexGroup(Declared, frozen=True, kw_only=True, tag_field="kind", tag="sex"):
    """Administrative gender, one indicator a category; any other sets none."""

    name: str = "sex"
    categories: tuple[Sex, ...] = (Sex.FEMALE, Sex.MALE)

    def __post_init__(self) -> None:
        expect_each_once(self.categories, f"category of {self.name!r}")


class _CategoryGroup(Declared, frozen=True, kw_only=True):
    """``categories`` are OMB category codes, or with a ``grouping`` the groups that these are mapped to."""

    name: str
    categories: tuple[str, ...]
    grouping: MappingFile | MappedCodes | None = None

    def __post_init__(self) -> None:
        expect_each_once(self.categories, f"category of {self.name!r}")
        if isinstance(self.grouping, MappedCodes):
            known = {line.group for line in self.grouping.codes}
            if any(category not in known for category in self.categories):
                raise ValueError(f"expected categories of {self.name!r} to be groups of its mapping")


class RaceGroup(_CategoryGroup, frozen=True, kw_only=True, tag_field="kind", tag="race"):
    """OMB race categories, one indicator a category; several may be set, and none if unknown."""

    name: str = "race"


class EthnicityGroup(_CategoryGroup, frozen=True, kw_only=True, tag_field="kind", tag="ethnicity"):
    """OMB ethnicity categories, one indicator a category; none is set if unknown."""

    name: str = "ethnicity"


class _CodeGroup(Declared, frozen=True, kw_only=True):
    """Facts in the window, counted per code of ``systems`` (URIs), or per group of codes where there is a grouping."""

    name: str
    systems: tuple[str, ...]
    codes: FixedCodes | LearnedCodes
    lookback_days: int
    grouping: Grouping | None = None
    count: CountKind = CountKind.COUNT

    def __post_init__(self) -> None:
        expect_each_once(self.systems, f"system of {self.name!r}")
        if not isinstance(self.codes, FixedCodes):
            return
        if (self.count is CountKind.TFIDF) != bool(self.codes.weights) and self.codes.codes:
            raise ValueError(f"expected weights in {self.name!r} if, and only if, it counts tfidf")
        _check_grouped(self.name, self.systems, self.grouping, self.codes.codes)


class DiagnosisGroup(_CodeGroup, frozen=True, kw_only=True, tag_field="kind", tag="diagnoses"):
    """Diagnoses recorded in the window, on the lists that are named."""

    recorded_in: tuple[DiagnosisList, ...]


class MedicationGroup(_CodeGroup, frozen=True, kw_only=True, tag_field="kind", tag="medications"):
    """Medication orders written in the window."""


class ProcedureGroup(_CodeGroup, frozen=True, kw_only=True, tag_field="kind", tag="procedures"):
    """Procedures done in the window."""


class OrderGroup(_CodeGroup, frozen=True, kw_only=True, tag_field="kind", tag="orders"):
    """Orders for tests signed in the window, whatever became of them; the order of the event itself is never seen."""


class VisitGroup(_CodeGroup, frozen=True, kw_only=True, tag_field="kind", tag="visits"):
    """Contacts with the hospital that began in the window, by class; the present one counts too."""


class _ResultGroup(Declared, frozen=True, kw_only=True):
    """Results in the window, per test. A unit without a reviewed conversion is no result."""

    name: str
    analytes: tuple[Analyte, ...]
    statistics: tuple[Statistic, ...]
    lookback_days: int

    def __post_init__(self) -> None:
        if Statistic.BINS in self.statistics and any(analyte.bins is None for analyte in self.analytes):
            raise ValueError(f"expected bins for every analyte of {self.name!r}, which counts results per bin")
        expect_each_once([key for analyte in self.analytes for key in analyte.keys], f"analyte of {self.name!r}")
        expect_each_once(self.statistics, f"statistic of {self.name!r}")


class LabGroup(_ResultGroup, frozen=True, kw_only=True, tag_field="kind", tag="labs"):
    """Laboratory results whose specimen was taken in the window."""


class VitalGroup(_ResultGroup, frozen=True, kw_only=True, tag_field="kind", tag="vitals"):
    """Bedside measurements taken in the window."""


CategoryGroup = AgeGroup | SexGroup | RaceGroup | EthnicityGroup
CodeGroup = DiagnosisGroup | MedicationGroup | ProcedureGroup | OrderGroup | VisitGroup
ResultGroup = LabGroup | VitalGroup
WindowedGroup = CodeGroup | ResultGroup
Group = CategoryGroup | WindowedGroup


class FeatureSpec(Declared, frozen=True, kw_only=True, cache_hash=True):
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
        expect_each_once(names, "group name")
        for group in self.groups:
            if isinstance(group, WindowedGroup) and not 1 <= group.lookback_days <= 36_500:
                raise ValueError(f"expected lookback_days of {group.name!r} from 1 to 36500")

    @property
    def is_fitted(self) -> bool:
        """True when nothing is left to be learned, so that the features are fixed."""
        return not self.unfitted()

    def unfitted(self) -> tuple[str, ...]:
        """Name what is still to be learned from training rows or read from a file, as ``group`` or ``group/code``."""
        found = []
        for group in self.groups:
            grouping = getattr(group, "grouping", None)
            if isinstance(grouping, MappingFile) or (
                isinstance(group, CodeGroup) and isinstance(group.codes, LearnedCodes)
            ):
                found.append(group.name)
            if isinstance(group, ResultGroup):
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
    schema: dict[str, Any] = _with_clean_descriptions(msgspec.json.schema(FeatureSpec))
    return schema


def _with_clean_descriptions(schema: Any) -> Any:
    """Take the indentation out of docstrings, as Python 3.13 does itself: one schema on every version."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else _with_clean_descriptions(value)
            for key, value in schema.items()
        }
    return [_with_clean_descriptions(item) for item in schema] if isinstance(schema, list) else schema


def _check_grouped(name: str, systems: tuple[str, ...], grouping: Grouping | None, codes: tuple[Code, ...]) -> None:
    if isinstance(grouping, MappingFile):
        return  # checked once the file is read
    if isinstance(grouping, MappedCodes):
        systems = (grouping.system,)
        known = {line.group for line in grouping.codes}
        if any(code.value not in known for code in codes):
            raise ValueError(f"expected codes of {name!r} to be groups of its mapping")
    if any(code.system not in systems for code in codes):
        raise ValueError(f"expected codes of {name!r} to be of its systems, or of its mapping's groups")
    if isinstance(grouping, PrefixGrouping) and any(
        len(code.value) > grouping.length or "." in code.value for code in codes
    ):
        raise ValueError(f"expected codes of {name!r} of at most {grouping.length} characters, without dots")


def _refuse_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise DeclarationInvalid(f"feature declaration: expected the key {key!r} once, got it twice in one object")
    return dict(pairs)
