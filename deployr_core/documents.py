"""What a model takes from a patient's documents, declared as data: which ones, and which columns are made of them.

A note's terms and a picture's cells are columns like any feature: they stand after the feature declaration's, in the
same vector, so that every kind of model can take them, and the packet, the golden rows, the explanation and the replay
know nothing new. The declaration is the bundle's ``documents.json``; how the columns are computed is in
`deployr_core.document_columns`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from deployr_core.codes import Code
from deployr_core.declared import Declared, expect_each_once
from deployr_core.features import DeclarationInvalid, FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.note_terms import terms_of

SCHEMA_VERSION = 1
DOCUMENTS_FILE = "documents.json"
MOST_BYTES = 20_000_000
"""Of one document, as its content is; with base64 around it, it still fits into an answer that is read."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class _Wanted(Declared, frozen=True, kw_only=True):
    """Which documents: of these types and of these categories (either may be empty), the latest of the look-back.

    ``most``: how many at most. ``max_bytes``: of one document. ``absent``: what becomes of a patient without any:
    ``abstain``, or ``zeros`` in every column. ``unusable``: what becomes of one that cannot be read, or is of another
    content type: ``abstain``, or ``skip`` goes on without it.
    """

    name: str
    types: tuple[Code, ...] = ()
    categories: tuple[Code, ...] = ()
    lookback_days: int
    most: int = 1
    max_bytes: int = 1_000_000
    absent: Literal["abstain", "zeros"] = "abstain"
    unusable: Literal["abstain", "skip"] = "abstain"

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"expected a lower_snake_case group name, got {self.name!r}")
        if not (self.types or self.categories):
            raise ValueError(f"expected types or categories of documents in {self.name!r}")
        if not 1 <= self.lookback_days <= 36_500:
            raise ValueError(f"expected lookback_days of {self.name!r} from 1 to 36500")
        if not 1 <= self.most <= 20:
            raise ValueError(f"expected most of {self.name!r} from 1 to 20")
        if not 1 <= self.max_bytes <= MOST_BYTES:
            raise ValueError(f"expected max_bytes of {self.name!r} from 1 to {MOST_BYTES}")


class NoteTerms(_Wanted, frozen=True, kw_only=True, tag_field="kind", tag="terms"):
    """Terms of a fixed vocabulary, counted over all of the documents, one column a term.

    ``weights`` are what the counts are multiplied by, one a term; none is 1. With ``unit_length`` the products are
    divided by the root of the sum of their squares. Together that is scikit-learn's tf-idf.
    """

    content_types: tuple[Literal["text/plain", "text/html"], ...] = ("text/plain", "text/html")
    terms: tuple[str, ...]
    weights: tuple[float, ...] = ()
    unit_length: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_each_once(self.terms, f"term of {self.name!r}")
        expect_each_once(self.content_types, f"content type of {self.name!r}")
        if not self.terms or not self.content_types:
            raise ValueError(f"expected terms and content types in {self.name!r}")
        if any(terms_of(term) != [term] for term in self.terms):
            raise ValueError(f"expected terms of {self.name!r} as they are read: one word of small letters each")
        if self.weights and len(self.weights) != len(self.terms):
            raise ValueError(f"expected as many weights as terms in {self.name!r}")
        if not all(0.0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"expected weights above 0 in {self.name!r}")


class ImageCells(_Wanted, frozen=True, kw_only=True, tag_field="kind", tag="cells"):
    """One picture in ``rows`` by ``columns`` cells, one column a cell: the mean grey of its pixels, from 0 to 1.

    ``max_pixels``: of the picture as it comes; a larger one is not unpacked.
    """

    content_types: tuple[Literal["image/png", "image/jpeg"], ...] = ("image/png", "image/jpeg")
    rows: int
    columns: int
    max_pixels: int = 25_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_each_once(self.content_types, f"content type of {self.name!r}")
        if not self.content_types or self.most != 1:
            raise ValueError(f"expected content types and the latest picture alone in {self.name!r}")
        if not (1 <= self.rows <= 64 and 1 <= self.columns <= 64):
            raise ValueError(f"expected 1 to 64 rows and columns of cells in {self.name!r}")
        if not 1 <= self.max_pixels <= 50_000_000:
            raise ValueError(f"expected max_pixels of {self.name!r} from 1 to 50000000")


DocumentGroup = NoteTerms | ImageCells


class Example(Declared, frozen=True, kw_only=True):
    """A made-up document and its group's columns, counted from the group's first: proof that it is read alike here."""

    group: str
    content_type: str
    content: bytes
    indices: tuple[int, ...]
    values: tuple[float, ...]


class Documents(Declared, frozen=True, kw_only=True, cache_hash=True):
    """What a model takes from documents, group after group in the order of their columns.

    Raises:
        ValueError: a name twice, or a group without an example.
    """

    schema_version: int
    groups: tuple[DocumentGroup, ...]
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        expect_each_once([group.name for group in self.groups], "group name")
        if not self.groups or {example.group for example in self.examples} != {group.name for group in self.groups}:
            raise ValueError("expected at least one group of documents, and an example of each")

    def to_json(self) -> bytes:
        """Give the declaration's canonical bytes: sorted keys, no spaces."""
        return msgspec.json.encode(self, order="sorted")


class SeenDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was scored, as its packet tells of it: no text, no picture, no id; both hashes are keyed.

    ``content_hash`` is of its bytes, ``size`` their number; ``known_at`` is aware UTC.
    """

    group: str
    document_hash: str
    content_hash: str
    content_type: str
    size: int
    known_at: datetime

    def __repr__(self) -> str:
        return "<SeenDocument>"


def parse_documents(source: bytes, spec: FeatureSpec) -> Documents:
    """Read a declaration that stands beside a feature declaration.

    Raises:
        DeclarationInvalid: not JSON, not what it must be, or a group named as one of the features'.
    """
    try:
        documents = msgspec.json.decode(source, type=Documents)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeclarationInvalid(f"{DOCUMENTS_FILE}: {error}") from None
    if {group.name for group in documents.groups} & {group.name for group in spec.groups}:
        raise DeclarationInvalid(f"{DOCUMENTS_FILE}: expected other group names than those of the features")
    return documents


def names_of(group: DocumentGroup) -> tuple[str, ...]:
    """Name a group's columns: first whether there was any document, then terms or cells."""
    match group:
        case NoteTerms():
            told = [f"term/{term}" for term in group.terms]
        case ImageCells():
            told = [f"cell/{row},{column}" for row in range(group.rows) for column in range(group.columns)]
    return tuple(f"{group.name}/{name}" for name in ("present", *told))


def column_names(spec: FeatureSpec, documents: Documents | None) -> tuple[str, ...]:
    """Name every column that a model is fed: the features', then those of the documents, if it takes any."""
    return (*layout_of(spec).names, *_names(() if documents is None else documents.groups))


def column_groups(spec: FeatureSpec, documents: Documents | None) -> tuple[str, ...]:
    """Give the group of every column, in the order of `column_names`."""
    groups = () if documents is None else documents.groups
    return (*layout_of(spec).groups_of, *(group.name for group in groups for _ in names_of(group)))


def _names(groups: Sequence[DocumentGroup]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in names_of(group))
