"""Where each feature of a fitted declaration stands, and the look-ups that find it from a fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from deployr_core.codes import Code
from deployr_core.declared import (
    Analyte,
    EdgeBins,
    FixedCodes,
    Grouping,
    MappedCodes,
    PrefixGrouping,
    Statistic,
)
from deployr_core.features import (
    AgeGroup,
    CategoryGroup,
    CodeGroup,
    EthnicityGroup,
    FeatureSpec,
    Group,
    RaceGroup,
    ResultGroup,
    SexGroup,
)
from deployr_core.units import conversion_factor

_MOST_REMEMBERED = 4096
"""Of what is found for the codes of one fact: a patient's are of a few kinds, a hospital's of thousands."""


class SpecNotFitted(ValueError):
    """The declaration still holds wishes; the message names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryLayout:
    """A demographic group's first column; the rest follow in the declared order.

    ``edges`` of ages; ``groups`` maps an OMB code to its category, where there is a mapping.
    """

    group: CategoryGroup
    first: int
    edges: tuple[float, ...] = ()
    groups: Mapping[Code, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeGroups:
    """How a group's codes are grouped: by a mapping, or cut to a prefix, or not at all."""

    systems: frozenset[str]
    prefix_length: int | None
    groups: Mapping[Code, Code] | None

    def of(self, code: Code) -> Code | None:
        """Give what the code counts as, or None if its system does not count or no mapping knows it."""
        if code.system not in self.systems:
            return None
        if self.groups is not None:
            return self.groups.get(code)
        return grouped_by_prefix(code, self.prefix_length)


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLayout:
    """A code group's columns by (grouped) code, the weight of each column, and its window.

    ``remembered``: what `remember` found, by codes; looked up by whoever counts facts, a thousand at a time.
    """

    group: CodeGroup
    code_groups: CodeGroups
    columns: Mapping[Code, int]
    weights: Mapping[int, float]
    lookback: timedelta
    remembered: dict[tuple[Code, ...], tuple[bool, tuple[int, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def remember(self, codes: tuple[Code, ...]) -> tuple[bool, tuple[int, ...]]:
        """Find whether any of a fact's codes counts as something, and the columns it counts in, and remember it."""
        if len(self.remembered) > _MOST_REMEMBERED:
            self.remembered.clear()
        grouped = {to for code in codes if (to := self.code_groups.of(code)) is not None}
        found = bool(grouped), tuple({column for to in grouped if (column := self.columns.get(to)) is not None})
        self.remembered[codes] = found
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyteLayout:
    """One test's first column for each statistic, its bin edges, and the range in which a value is a result."""

    analyte: Analyte
    plausible: tuple[float, float]
    edges: tuple[float, ...]
    columns: dict[Statistic, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ResultReading:
    """How results become values: the test that a code names, its unit and its plausible range.

    Groups of one kind that declare the same tests share one, so that what two windows hold is read once. ``lookback``:
    the longest of theirs. ``remembered``: what `remember` found, by codes and unit; looked up by whoever reads results,
    a thousand at a time.
    """

    analytes: tuple[Analyte, ...]
    place_of: Mapping[Code, int]
    lookback: timedelta
    remembered: dict[tuple[tuple[Code, ...], str], tuple[tuple[int, float | None], ...]] = field(default_factory=dict)

    def remember(self, codes: tuple[Code, ...], unit: str) -> tuple[tuple[int, float | None], ...]:
        """Find the place of each test that these codes name, with the factor to its unit or None, and remember it.

        Of several codes of one test the first that the declaration names decides.
        """
        if len(self.remembered) > _MOST_REMEMBERED:
            self.remembered.clear()
        found = tuple(self._converted(codes, unit))
        self.remembered[codes, unit] = found
        return found

    def _converted(self, codes: tuple[Code, ...], unit: str) -> Iterator[tuple[int, float | None]]:
        for place in dict.fromkeys(self.place_of[code] for code in codes if code in self.place_of):
            analyte = self.analytes[place]
            key = next(key for key in analyte.keys if key in codes)
            yield place, conversion_factor(key, unit=unit, wanted=analyte.unit)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultLayout:
    """A group of results: its tests in the declared order, how its results are read, and its window."""

    group: ResultGroup
    analytes: tuple[AnalyteLayout, ...]
    reading: ResultReading
    lookback: timedelta


GroupLayout = CategoryLayout | CodeLayout | ResultLayout


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
    readings = _readings(spec)
    for group in spec.groups:
        layouts.append(_lay_out(group, names, readings))
        groups_of += [group.name] * (len(names) - len(groups_of))
    return FeatureLayout(
        spec_digest=spec.digest(), names=tuple(names), groups_of=tuple(groups_of), groups=tuple(layouts)
    )


def code_groups_of(group: CodeGroup) -> CodeGroups:
    """Give how a group's codes are grouped; the group need not be fitted."""
    return CodeGroups(
        systems=frozenset(group.systems),
        prefix_length=group.grouping.length if isinstance(group.grouping, PrefixGrouping) else None,
        groups=groups_of_mapping(group.grouping),
    )


def grouped_by_prefix(code: Code, length: int | None) -> Code:
    """Cut a code to its first ``length`` characters, not counting dots: ``I48.0`` to 4 is ``I480``; None leaves it."""
    return code if length is None else Code(code.system, code.value.replace(".", "")[:length])


def groups_of_mapping(grouping: Grouping | None) -> dict[Code, Code] | None:
    """Give a mapping's group of each code, as a code itself; None where codes are not grouped by a mapping."""
    if not isinstance(grouping, MappedCodes):
        return None
    return {Code(line.system, line.code): Code(grouping.system, line.group) for line in grouping.codes}


def _lay_out(group: Group, names: list[str], readings: Mapping[Hashable, ResultReading]) -> GroupLayout:
    if isinstance(group, CodeGroup):
        return _lay_out_codes(group, names)
    if isinstance(group, ResultGroup):
        return _lay_out_results(group, names, readings[_reads(group)])
    return _lay_out_categories(group, names)


def _lay_out_categories(group: CategoryGroup, names: list[str]) -> CategoryLayout:
    first = len(names)
    match group:
        case AgeGroup(bins=EdgeBins() as bins):
            names += [f"{group.name}/{label}" for label in bins.labels()]
            return CategoryLayout(group=group, first=first, edges=bins.edges)
        case SexGroup():
            names += [f"{group.name}/{category}" for category in group.categories]
            return CategoryLayout(group=group, first=first)
        case RaceGroup() | EthnicityGroup():
            names += [f"{group.name}/{category}" for category in group.categories]
            mapped = groups_of_mapping(group.grouping)
            groups = None if mapped is None else {code: to.value for code, to in mapped.items()}
            return CategoryLayout(group=group, first=first, groups=groups)
        case _:
            raise SpecNotFitted(f"expected the ages of {group.name!r} cut at edges")


def _lay_out_codes(group: CodeGroup, names: list[str]) -> CodeLayout:
    first = len(names)
    fixed = group.codes if isinstance(group.codes, FixedCodes) else FixedCodes(codes=())
    names += [f"{group.name}/{label}" for label in _labels(fixed.codes)]
    weights = fixed.weights or (1.0,) * len(fixed.codes)
    return CodeLayout(
        group=group,
        columns={code: first + i for i, code in enumerate(fixed.codes)},
        weights={first + i: weight for i, weight in enumerate(weights)},
        code_groups=code_groups_of(group),
        lookback=timedelta(days=group.lookback_days),
    )


def _readings(spec: FeatureSpec) -> dict[Hashable, ResultReading]:
    """Give how results are read, by what `_reads` says of a group."""
    alike: dict[Hashable, list[ResultGroup]] = {}
    for group in spec.groups:
        if isinstance(group, ResultGroup):
            alike.setdefault(_reads(group), []).append(group)
    return {
        key: ResultReading(
            analytes=groups[0].analytes,
            place_of={code: place for place, analyte in enumerate(groups[0].analytes) for code in analyte.keys},
            lookback=timedelta(days=max(group.lookback_days for group in groups)),
        )
        for key, groups in alike.items()
    }


def _reads(group: ResultGroup) -> Hashable:
    """Give what two groups have in common that read the same results alike."""
    return type(group), tuple((analyte.keys, analyte.unit, analyte.plausible_range) for analyte in group.analytes)


def _lay_out_results(group: ResultGroup, names: list[str], reading: ResultReading) -> ResultLayout:
    labels = _labels([analyte.key for analyte in group.analytes])
    analytes = tuple(
        _lay_out_analyte(group, analyte, label, names) for analyte, label in zip(group.analytes, labels, strict=True)
    )
    return ResultLayout(
        group=group,
        analytes=analytes,
        reading=reading,
        lookback=timedelta(days=group.lookback_days),
    )


def _lay_out_analyte(group: ResultGroup, analyte: Analyte, label: str, names: list[str]) -> AnalyteLayout:
    columns = {}
    edges = analyte.bins.edges if isinstance(analyte.bins, EdgeBins) else ()
    for statistic in group.statistics:
        columns[statistic] = len(names)
        stem = f"{group.name}/{label}/{statistic.value}"
        if statistic is Statistic.BINS and isinstance(analyte.bins, EdgeBins):
            names += [stem + interval for interval in analyte.bins.labels()]
        else:
            names.append(stem)
    return AnalyteLayout(analyte=analyte, plausible=analyte.plausible_range, edges=edges, columns=columns)


def _labels(codes: Sequence[Code]) -> list[str]:
    """Name codes by their value; where two systems have the same one, by system and value."""
    times = Counter(code.value for code in codes)
    return [code.value if times[code.value] == 1 else f"{code.system}|{code.value}" for code in codes]
