"""What a clinician calls the features: one concept for all that the declaration computes from one test or code.

A laboratory test is one concept, whatever the bins, statistics and look-backs that it is cut into; so is a code, or a
group of codes, on whichever list it was recorded; and age, sex, race and ethnicity are one each.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deployr_core.codes import ICD9CM, ICD10CM, LOINC, NDC, RXNORM, SNOMED, Code
from deployr_core.contributions import Explanation
from deployr_core.declared import MappedCodes
from deployr_core.documents import Documents, ImageCells, NoteTerms, column_names, names_of
from deployr_core.features import FeatureSpec
from deployr_core.layout import (
    AnalyteLayout,
    CategoryLayout,
    CodeLayout,
    FeatureLayout,
    ResultLayout,
    layout_of,
)
from deployr_core.packet import Contribution

ROUNDING = "Rounding"
"""What a contribution is called that is no concept's: see `deployr_core.contributions.Explanation.closed`."""

_SYSTEMS = {
    ICD10CM: "ICD-10-CM",
    ICD9CM: "ICD-9-CM",
    SNOMED: "SNOMED CT",
    RXNORM: "RxNorm",
    NDC: "NDC",
    LOINC: "LOINC",
}
_NOUNS = {
    "diagnoses": "Diagnosis",
    "medications": "Medication",
    "procedures": "Procedure",
    "orders": "Order",
    "visits": "Visit",
}
"""By the group's kind, what one of its facts is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeColumn:
    """A code's one feature in one group."""

    layout: CodeLayout
    column: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyteColumns:
    """A test's features in one group."""

    layout: ResultLayout
    analyte: AnalyteLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class TermColumn:
    """A term's one column in the notes of one group; ``term`` is None of the column that says if there was a note."""

    group: str
    term: str | None
    column: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureColumns:
    """All columns of one group's picture; a cell of it means nothing by itself."""

    group: str


Source = CategoryLayout | CodeColumn | AnalyteColumns | TermColumn | PictureColumns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Concepts:
    """The concepts of a declaration: ``of_feature[i]`` is the name of feature ``i``'s, ``names[numbers[i]]`` too.

    ``sources``: by name, where the declaration computes it from; in the declared order. ``names``: all of them and
    `ROUNDING`, in the order of the alphabet.
    """

    of_feature: tuple[str, ...]
    sources: dict[str, tuple[Source, ...]]
    names: tuple[str, ...]
    numbers: NDArray[np.int64]


@lru_cache(maxsize=64)
def concepts_of(spec: FeatureSpec, documents: Documents | None = None) -> Concepts:
    """Give the concepts of a fitted declaration, and of what is taken from documents; computed once per declaration.

    Raises:
        SpecNotFitted: something is still to be learned from training rows.
    """
    layout = layout_of(spec)
    found = [*_found(layout), *_found_in_documents(documents, first=len(layout.names))]
    times: defaultdict[str, set[Code | None]] = defaultdict(set)
    for name, code, _, _ in found:
        times[name].add(code)
    of_feature = [""] * len(column_names(spec, documents))
    sources: defaultdict[str, list[Source]] = defaultdict(list)
    for plain, code, columns, source in found:
        name = plain if len(times[plain]) == 1 or code is None else f"{plain} ({_system(code)} {code.value})"
        sources[name].append(source)
        for column in columns:
            of_feature[column] = name
    names = tuple(sorted({*sources, ROUNDING}))
    number = {name: place for place, name in enumerate(names)}
    return Concepts(
        of_feature=tuple(of_feature),
        sources={name: tuple(each) for name, each in sources.items()},
        names=names,
        numbers=np.array([number[name] for name in of_feature], dtype=np.int64),
    )


def contributions_of(
    explanation: Explanation, spec: FeatureSpec, documents: Documents | None = None
) -> tuple[Contribution, ...]:
    """Give what each concept added, largest first, all that are not 0.

    Their values add up with the base to the last bit: ``math.fsum([base, *values]) == explained``. Plain summing may
    miss it by the last digit.

    Raises:
        ExplanationInvalid: they do not add up.
    """
    concepts = concepts_of(spec, documents)
    places = np.flatnonzero(explanation.by_feature)
    numbers, added = concepts.numbers[places], explanation.by_feature[places]
    sums = dict(zip(numbers.tolist(), added.tolist(), strict=True))
    if len(sums) < numbers.size:
        # A few have several features; to go through the hundreds for them would take as long as all the rest.
        shared = np.bincount(numbers)[numbers] > 1
        several: defaultdict[int, list[float]] = defaultdict(list)
        for number, value in zip(numbers[shared].tolist(), added[shared].tolist(), strict=True):
            several[number].append(value)
        sums.update((number, math.fsum(values)) for number, values in several.items())
    closed, rest = explanation.closed(list(sums.values()))
    told = list(sums)
    if rest:
        # Beside a concept that a declaration may call the same.
        told, closed = [*told, concepts.names.index(ROUNDING)], [*closed, rest]
    kept, parts = np.array(told, dtype=np.int64), np.array(closed, dtype=np.float64)
    order = np.lexsort((kept, -np.abs(parts)))
    names = concepts.names
    ordered = zip(kept[order].tolist(), parts[order].tolist(), strict=True)
    return tuple([Contribution(concept=names[number], value=value) for number, value in ordered if value])


def _found(layout: FeatureLayout) -> list[tuple[str, Code | None, range, Source]]:
    """Give each source with its concept's name, its code, and its columns."""
    found: list[tuple[str, Code | None, range, Source]] = []
    ends = [*_starts(layout)[1:], len(layout.names)]
    called: dict[Code, str] = {}
    for group, end in zip(layout.groups, ends, strict=True):
        match group:
            case CategoryLayout():
                kind = str(group.group.__struct_config__.tag)
                found.append((kind.capitalize(), None, range(group.first, end), group))
            case CodeLayout():
                for code, column in group.columns.items():
                    source = CodeColumn(layout=group, column=column)
                    found.append((_code_name(group, code), code, range(column, column + 1), source))
            case ResultLayout():
                firsts = [min(each.columns.values()) for each in group.analytes]
                for each, first, past in zip(group.analytes, firsts, [*firsts[1:], end], strict=True):
                    columns = AnalyteColumns(layout=group, analyte=each)
                    # One test is one concept, even where two groups name it differently.
                    name = called.setdefault(each.analyte.key, _plain(each.analyte.name) or each.analyte.code)
                    found.append((name, each.analyte.key, range(first, past), columns))
    return found


def _found_in_documents(documents: Documents | None, *, first: int) -> list[tuple[str, Code | None, range, Source]]:
    """Give what is found of documents; ``first`` is the column that the first group begins with."""
    found: list[tuple[str, Code | None, range, Source]] = []
    for group in documents.groups if documents else ():
        title = group.name.replace("_", " ").capitalize()
        end = first + len(names_of(group))
        match group:
            case NoteTerms():
                for column, term in enumerate((None, *group.terms), start=first):
                    source = TermColumn(group=title, term=term, column=column)
                    found.append((f"{title}: {term or 'any'}", None, range(column, column + 1), source))
            case ImageCells():
                found.append((f"{title}: picture", None, range(first, end), PictureColumns(group=title)))
        first = end
    return found


def _starts(layout: FeatureLayout) -> list[int]:
    """Give each group's first column; a group without features starts where the next one does."""
    seen = 0
    starts = []
    for group in layout.groups:
        starts.append(seen)
        seen += layout.groups_of.count(group.group.name)
    return starts


def _code_name(layout: CodeLayout, code: Code) -> str:
    noun = _NOUNS[str(layout.group.__struct_config__.tag)]
    if isinstance(layout.group.grouping, MappedCodes):
        return f"{noun} {_plain(code.value)}"
    return f"{noun} {_system(code)} {_plain(code.value)}"


def _system(code: Code) -> str:
    """Name a coding system as people do, or by the last part of its URI: ``urn:fdb:hicl`` is ``hicl``."""
    return _SYSTEMS.get(code.system) or _plain(re.split(r"[:/#]", code.system.rstrip("/"))[-1])


def _plain(text: str) -> str:
    """Give a declared name on one line, without what could be taken for markup."""
    return " ".join(re.sub(r"[<>\x00-\x1f\x7f]", " ", text).split())
