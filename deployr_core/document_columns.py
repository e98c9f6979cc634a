"""From a patient's documents to the columns that a model was promised, the same bits on every machine. Pure.

Counts are whole numbers, means of greys are quotients of whole numbers, and the one sum is exact: nothing depends on
the order of the documents' words or on a library's last bit. Unpacking a JPEG does depend on the library that does it,
so that the columns themselves are what the packet keeps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from deployr_core.document_reading import DocumentUnreadable, grey_pixels, text_of
from deployr_core.documents import (
    DocumentGroup,
    Documents,
    Example,
    ImageCells,
    NoteTerms,
    SeenDocument,
    names_of,
)
from deployr_core.note_terms import terms_of
from deployr_core.vectorize import FeatureVector


class DocumentShortfall(StrEnum):
    """Why a model that takes documents may not score; the values are reason codes of the glossary."""

    NONE = "no-document"
    UNREADABLE = "document-unreadable"


_ANY_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document as it came: its bytes, and what may be kept of it.

    ``content_type`` is without parameters; ``charset`` is one of them. Both hashes are keyed.
    """

    content: bytes = field(repr=False)
    content_type: str
    charset: str = ""
    known_at: datetime
    document_hash: str = ""
    content_hash: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """One that is there and cannot be used; ``why`` is a code that is counted in the coverage."""

    why: str


Came = Mapping[str, Sequence[Document | Unusable]]
"""By group, what a patient has of it, the latest first, at most as many as declared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentRow:
    """What documents give for one vector. ``values``: by column, counted from the first column of the first group.

    ``coverage``: how many documents were read, and how many not and why. ``shortfall``: why the model may not score;
    None if it may. ``seen``: those that the values are of.
    """

    values: Mapping[int, float] = field(repr=False)
    width: int
    coverage: Mapping[str, int] = field(default_factory=dict)
    seen: tuple[SeenDocument, ...] = ()
    shortfall: DocumentShortfall | None = None


def document_row(documents: Documents, came: Came) -> DocumentRow:
    """Read what came into the declared columns; what cannot be read is counted, and may end it all.

    Raises:
        ReaderMissing: what reads pictures is not installed.
    """
    first = 0
    values: dict[int, float] = {}
    coverage: dict[str, int] = {}
    seen: list[SeenDocument] = []
    shortfalls: list[DocumentShortfall] = []
    for group in documents.groups:
        columns, read, unusable = _read(group, came.get(group.name, ()))
        values.update({first + place: value for place, value in columns.items()})
        seen += [_seen(group, each) for each in read]
        coverage |= {f"{group.name}.{why}": count for why, count in unusable.items()}
        coverage[f"{group.name}.documents"] = len(read)
        if (unusable and group.unusable == "abstain") or (not read and group.absent == "abstain"):
            shortfalls.append(DocumentShortfall.UNREADABLE if unusable else DocumentShortfall.NONE)
        first += len(names_of(group))
    return DocumentRow(
        values=values, width=first, coverage=coverage, seen=tuple(seen), shortfall=next(iter(shortfalls), None)
    )


def with_documents(vector: FeatureVector, row: DocumentRow) -> FeatureVector:
    """Give the vector with the documents' columns behind its own; its digest stays the feature declaration's."""
    places = sorted(place for place, value in row.values.items() if value != 0.0)
    return replace(
        vector,
        size=vector.size + row.width,
        indices=np.concatenate([vector.indices, np.array(places, dtype=np.int32) + np.int32(vector.size)]),
        values=np.concatenate([vector.values, np.array([row.values[place] for place in places], dtype=np.float64)]),
        coverage={**vector.coverage, **row.coverage},
    )


def columns_of(group: DocumentGroup, contents: Iterable[tuple[str, bytes]]) -> dict[int, float]:
    """Give a group's columns, those that are not 0, for documents as content type and bytes in UTF-8.

    Raises:
        DocumentUnreadable: one of them cannot be read.
        ReaderMissing: what reads pictures is not installed.
    """
    documents = [Document(content=bytes_, content_type=kind, known_at=_ANY_INSTANT) for kind, bytes_ in contents]
    match group:
        case NoteTerms():
            return _note_columns(group, [_text(each) for each in documents])
        case ImageCells():
            return _image_columns([_cells(group, each) for each in documents])


def expect_examples(documents: Documents) -> None:
    """Return if every example is read here as it was where the bundle was made.

    Raises:
        ValueError: one is not, or cannot be read here at all.
        ReaderMissing: what reads pictures is not installed.
    """
    groups = {group.name: group for group in documents.groups}
    for number, example in enumerate(documents.examples):
        found = columns_of(groups[example.group], [(example.content_type, example.content)])
        if found != dict(zip(example.indices, example.values, strict=True)):
            raise ValueError(f"expected example {number} to be read as it was where the bundle was made")


def example_of(group: DocumentGroup, content_type: str, content: bytes) -> Example:
    """Give a made-up document with the columns that it must get everywhere.

    Raises:
        DocumentUnreadable, ReaderMissing: see `columns_of`.
    """
    columns = columns_of(group, [(content_type, content)])
    return Example(
        group=group.name,
        content_type=content_type,
        content=content,
        indices=tuple(sorted(columns)),
        values=tuple(columns[place] for place in sorted(columns)),
    )


def _read(
    group: DocumentGroup, came: Sequence[Document | Unusable]
) -> tuple[dict[int, float], list[Document], Counter[str]]:
    """Give the group's columns, the documents that they are of, and why others were not read."""
    read: list[Document] = []
    texts: list[str] = []
    pictures: list[NDArray[np.float64]] = []
    unusable: Counter[str] = Counter()
    for each in came:
        try:
            if isinstance(each, Unusable):
                raise DocumentUnreadable(each.why)
            match group:
                case NoteTerms():
                    texts.append(_text(each))
                case ImageCells():
                    pictures.append(_cells(group, each))
            read.append(each)
        except DocumentUnreadable as error:
            unusable[error.why] += 1
    match group:
        case NoteTerms():
            return _note_columns(group, texts), read, unusable
        case ImageCells():
            return _image_columns(pictures), read, unusable


def _text(document: Document) -> str:
    return text_of(document.content, document.content_type, charset=document.charset)


def _note_columns(group: NoteTerms, texts: Sequence[str]) -> dict[int, float]:
    if not texts:
        return {}
    counts = Counter(term for text in texts for term in terms_of(text))
    weights = group.weights or (1.0,) * len(group.terms)
    told = [
        (place, counts[term] * weight)
        for place, (term, weight) in enumerate(zip(group.terms, weights, strict=True), start=1)
        if term in counts
    ]
    length = math.sqrt(math.fsum(value * value for _, value in told)) if group.unit_length and told else 1.0
    return {0: 1.0} | {place: value / length for place, value in told}


def _image_columns(pictures: Sequence[NDArray[np.float64]]) -> dict[int, float]:
    if not pictures:
        return {}
    cells = pictures[0].ravel()
    return {0: 1.0} | {place + 1: float(cells[place]) for place in np.flatnonzero(cells).tolist()}


def _cells(group: ImageCells, document: Document) -> NDArray[np.float64]:
    """Give the mean grey of each cell from 0 to 1, shape (rows, columns); each sum is one of whole numbers."""
    pixels = grey_pixels(document.content, max_pixels=group.max_pixels)
    height, width = pixels.shape
    if height < group.rows or width < group.columns:
        raise DocumentUnreadable("too_small")
    tops = np.arange(group.rows + 1) * height // group.rows
    lefts = np.arange(group.columns + 1) * width // group.columns
    by_row = np.add.reduceat(pixels, tops[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(by_row, lefts[:-1], axis=1, dtype=np.int64)
    counts = np.outer(np.diff(tops), np.diff(lefts))
    return np.asarray(sums / (255 * counts), dtype=np.float64)


def _seen(group: DocumentGroup, document: Document) -> SeenDocument:
    return SeenDocument(
        group=group.name,
        document_hash=document.document_hash,
        content_hash=document.content_hash,
        content_type=document.content_type,
        size=len(document.content),
        known_at=document.known_at,
    )
