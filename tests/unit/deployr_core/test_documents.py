"""What is taken from documents: which are declared, how they are read, and which columns come of them."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from deployr_core.codes import Code
from deployr_core.concepts import concepts_of, contributions_of
from deployr_core.contributions import Explanation
from deployr_core.declared import EdgeBins
from deployr_core.document_columns import (
    Document,
    Unusable,
    columns_of,
    document_row,
    example_of,
    expect_examples,
    with_documents,
)
from deployr_core.document_reading import DocumentUnreadable, grey_pixels, text_of
from deployr_core.documents import Documents, ImageCells, NoteTerms, column_groups, column_names, parse_documents
from deployr_core.features import AgeGroup, DeclarationInvalid, FeatureSpec, SexGroup
from deployr_core.note_terms import terms_of
from deployr_core.packet import Scored, StoredVector
from deployr_core.reasons import reasons
from deployr_core.vectorize import FeatureVector

NOTE_TYPE = Code("http://loinc.org", "34117-2")
AT = datetime(2015, 1, 6, 20, tzinfo=UTC)
SPEC = FeatureSpec(schema_version=1, groups=(SexGroup(),))


def notes(**changes: Any) -> NoteTerms:
    given: dict[str, Any] = {"name": "notes", "types": (NOTE_TYPE,), "lookback_days": 7, "terms": ("cough", "fever")}
    return NoteTerms(**{**given, **changes})


def picture(**changes: Any) -> ImageCells:
    given: dict[str, Any] = {"name": "chest", "categories": (NOTE_TYPE,), "lookback_days": 7, "rows": 1, "columns": 2}
    return ImageCells(**{**given, **changes})


def png(greys: Any, mode: str = "L", kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(greys, dtype=np.uint8)).convert(mode).save(file, kind)
    return file.getvalue()


def documents(*groups: Any) -> Documents:
    made = {"notes": ("text/plain", b"cough"), "chest": ("image/png", png([[0, 255]]))}
    examples = tuple(example_of(group, *made[group.name]) for group in groups)
    return Documents(schema_version=1, groups=groups, examples=examples)


def note(text: str, content_type: str = "text/plain", **more: Any) -> Document:
    return Document(content=text.encode(), content_type=content_type, known_at=AT, **more)


# -- words


def test_a_term_is_a_run_of_letters_and_no_number_gets_into_a_vocabulary() -> None:
    assert terms_of("Fever 39.5°C, MRN 12345; co-trimoxazole I.V. x2") == ["fever", "mrn", "co", "trimoxazole"]
    assert terms_of("ÖDEM ﬁbrosis Straße") == ["ödem", "fibrosis", "strasse"]


def test_markup_ends_no_word_inside_a_word_and_ends_one_between_cells() -> None:
    html = (
        b"<html><head><title>Kowalski</title></head><body><p>Pneu<b>mo</b>nia</p><script>fever()</script>"
        b"<!-- sepsis --><table><tr><td>no</td><td>cough</td></tr></table>&lt;ok&gt;<style>x{}</style></body></html>"
    )
    assert terms_of(text_of(html, "text/html")) == ["pneumonia", "no", "cough", "ok"]


def test_no_entity_of_a_document_type_is_fetched_or_expanded(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("topsecret", encoding="utf-8")
    html = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><p>before &x; after</p>'.encode()
    assert "topsecret" not in terms_of(text_of(html, "text/html"))


def test_markup_that_the_parser_gives_up_on_is_refused_and_what_is_merely_wrong_is_read() -> None:
    assert terms_of(text_of(b"<p>fever <b>and <i>cough</b></p></div><unknown x>ok<", "text/html"))[:3] == [
        "fever",
        "and",
        "cough",
    ]
    with pytest.raises(DocumentUnreadable) as refused:
        text_of(b"no fever" + b"<div>" * 300 + b"fever", "text/html")
    assert refused.value.why == "not_html"


@pytest.mark.parametrize(
    ("content", "charset", "why"),
    [
        (b"\xe4\xf6", "", "not_text"),
        (b"caf\xe9", "us-ascii", "not_text"),
        (b"anything", "utf-7", "other_charset"),
        (b" \n", "", "empty"),
        (b"", "", "empty"),
    ],
)
def test_what_is_no_text_is_refused_with_a_code(content: bytes, charset: str, why: str) -> None:
    with pytest.raises(DocumentUnreadable) as refused:
        text_of(content, "text/plain", charset=charset)
    assert refused.value.why == why


def test_the_charset_that_is_named_is_the_one_that_is_read() -> None:
    assert text_of(b"caf\xe9", "text/plain", charset="ISO-8859-1") == "café"
    assert text_of(b"\xef\xbb\xbfcough", "text/plain") == "cough"


# -- pictures


def test_a_cell_is_the_mean_grey_of_its_pixels() -> None:
    # Left half 0 and 100, right half 200 and 255: 100 / 510 and 455 / 510.
    found = columns_of(picture(), [("image/png", png([[0, 200], [100, 255]]))])
    assert found == {0: 1.0, 1: 100 / 510, 2: 455 / 510}


def test_cells_of_a_picture_that_cannot_be_cut_evenly_share_all_its_pixels() -> None:
    # 5 pixels in 2 cells: the first has 2, the second 3. A black cell is 0 and so absent.
    assert columns_of(picture(), [("image/png", png([[0, 0, 51, 51, 51]]))]) == {0: 1.0, 2: 0.2}


def test_a_photograph_is_turned_upright() -> None:
    file = io.BytesIO()
    held = Image.fromarray(np.array([[0] * 8, [255] * 8], dtype=np.uint8).repeat(4, axis=0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    held.save(file, "JPEG", exif=exif, quality=100)
    pixels = grey_pixels(file.getvalue(), max_pixels=100)
    assert pixels[:, 0].min() > 200
    assert pixels[:, -1].max() < 55


@pytest.mark.parametrize(
    ("content", "max_pixels", "why"),
    [
        (png([[0, 1], [2, 3]]), 3, "too_many_pixels"),
        (png([[0, 1], [2, 3]])[:40], 100, "not_an_image"),
        (b"GIF89a", 100, "not_an_image"),
        (b"", 100, "not_an_image"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_code(content: bytes, max_pixels: int, why: str) -> None:
    with pytest.raises(DocumentUnreadable) as refused:
        grey_pixels(content, max_pixels=max_pixels)
    assert refused.value.why == why


def test_a_bomb_is_not_unpacked() -> None:
    # A header that promises 60,000 by 60,000 pixels, and next to nothing behind it.
    whole = png([[0]])
    header = whole.index(b"IHDR") + 4
    size = (60_000).to_bytes(4, "big") * 2
    import zlib

    body = b"IHDR" + size + whole[header + 8 : header + 13]
    bomb = whole[: header - 4] + body + zlib.crc32(body).to_bytes(4, "big") + whole[header + 17 :]
    with pytest.raises(DocumentUnreadable) as refused:
        grey_pixels(bomb, max_pixels=25_000_000)
    assert refused.value.why == "too_many_pixels"


def test_brightness_beyond_eight_bits_is_refused_rather_than_cut_off() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 40_000]], dtype=np.uint16)).save(file, "PNG")
    with pytest.raises(DocumentUnreadable) as refused:
        grey_pixels(file.getvalue(), max_pixels=100)
    assert refused.value.why == "other_mode"


# -- columns


def test_counts_of_all_documents_are_weighted_and_brought_to_unit_length() -> None:
    group = notes(weights=(2.0, 1.0), unit_length=True, most=2)
    row = document_row(documents(group), {"notes": [note("Cough, cough"), note("cough fever and chills")]})
    # 3 coughs of weight 2, 1 fever of weight 1: (6, 1) / sqrt(37)
    assert dict(row.values) == {0: 1.0, 1: 6 / math.sqrt(37), 2: 1 / math.sqrt(37)}
    assert (row.width, row.coverage, row.shortfall) == (3, {"notes.documents": 2}, None)


def test_columns_stand_behind_the_features_and_are_named() -> None:
    declared = documents(notes(), picture())
    assert column_names(SPEC, declared) == (
        "sex/female", "sex/male", "notes/present", "notes/term/cough", "notes/term/fever",
        "chest/present", "chest/cell/0,0", "chest/cell/0,1",
    )  # fmt: skip
    assert column_groups(SPEC, declared) == ("sex",) * 2 + ("notes",) * 3 + ("chest",) * 3
    assert column_names(SPEC, None) == ("sex/female", "sex/male")
    vector = FeatureVector(
        spec_digest="d", size=2, indices=np.array([1], np.int32), values=np.array([1.0]), coverage={"a": 1}
    )
    came = {
        "notes": [note("fever")],
        "chest": [Document(content=png([[0, 51]]), content_type="image/png", known_at=AT)],
    }
    whole = with_documents(vector, document_row(declared, came))
    assert whole.dense().tolist() == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.2]
    assert (whole.indices.dtype, whole.spec_digest) == (np.int32, "d")
    assert whole.coverage == {"a": 1, "notes.documents": 1, "chest.documents": 1}


@pytest.mark.parametrize(
    ("changes", "came", "shortfall"),
    [
        ({}, [], "no-document"),
        ({"absent": "zeros"}, [], None),
        ({}, [Unusable(why="other_type")], "document-unreadable"),
        ({"absent": "zeros"}, [Unusable(why="other_type")], "document-unreadable"),
        ({"most": 2}, [note("cough"), Unusable(why="missing")], "document-unreadable"),
        ({"most": 2, "unusable": "skip"}, [note("cough"), Unusable(why="missing")], None),
        ({"unusable": "skip"}, [Unusable(why="missing")], "document-unreadable"),
        ({"unusable": "skip", "absent": "zeros"}, [note("")], None),
    ],
)
def test_none_and_unusable_ones_end_it_unless_the_declaration_says_otherwise(
    changes: dict[str, Any], came: list[Any], shortfall: str | None
) -> None:
    row = document_row(documents(notes(**changes)), {"notes": came})
    assert row.shortfall == shortfall
    assert (0 in row.values) == any(isinstance(each, Document) and each.content for each in came)


def test_what_was_not_read_is_counted_by_reason_and_what_was_is_told_of_without_its_text() -> None:
    group = notes(most=3, unusable="skip")
    seen = note("cough", document_hash="d1", content_hash="c1")
    row = document_row(documents(group), {"notes": [seen, note(""), Unusable(why="too_large")]})
    assert row.coverage == {"notes.documents": 1, "notes.empty": 1, "notes.too_large": 1}
    (told,) = row.seen
    assert msgspec.to_builtins(told) == {
        "group": "notes",
        "document_hash": "d1",
        "content_hash": "c1",
        "content_type": "text/plain",
        "size": 5,
        "known_at": "2015-01-06T20:00:00Z",
    }
    assert "cough" not in repr((row, seen, told))


# -- declared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"types": ()}, "expected types or categories"),
        ({"terms": ("Cough",)}, "small letters"),
        ({"terms": ("two words",)}, "one word"),
        ({"terms": ("a1",)}, "one word"),
        ({"terms": ()}, "expected terms"),
        ({"terms": ("cough", "cough")}, "each term"),
        ({"weights": (1.0,)}, "as many weights"),
        ({"weights": (1.0, 0.0)}, "above 0"),
        ({"lookback_days": 0}, "lookback_days"),
        ({"most": 21}, "most"),
        ({"max_bytes": 20_000_001}, "max_bytes"),
        ({"name": "Notes"}, "lower_snake_case"),
    ],
)
def test_notes_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        notes(**changes)


@pytest.mark.parametrize("changes", [{"rows": 65}, {"columns": 0}, {"most": 2}, {"max_pixels": 60_000_000}])
def test_pictures_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        picture(**changes)


def test_a_declaration_reads_back_from_its_bytes_and_is_refused_beside_a_group_of_the_same_name() -> None:
    declared = documents(notes(weights=(0.1, 0.7)), picture())
    assert parse_documents(declared.to_json(), SPEC) == declared
    same = FeatureSpec(schema_version=1, groups=(AgeGroup(name="notes", bins=EdgeBins(edges=(18.0,))),))
    with pytest.raises(DeclarationInvalid, match="other group names"):
        parse_documents(declared.to_json(), same)
    with pytest.raises(DeclarationInvalid, match="an example of each"):
        parse_documents(declared.to_json().replace(b'"group":"chest"', b'"group":"notes"'), SPEC)
    with pytest.raises(DeclarationInvalid, match=r"unknown field|expected"):
        parse_documents(declared.to_json().replace(b'"lookback_days"', b'"lookback_dayz"'), SPEC)


def test_an_example_that_is_read_otherwise_here_is_noticed() -> None:
    declared = documents(notes())
    expect_examples(declared)
    (example,) = declared.examples
    other = msgspec.structs.replace(declared, examples=(msgspec.structs.replace(example, content=b"coughs"),))
    with pytest.raises(ValueError, match="example 0"):
        expect_examples(other)


# -- explained


def test_contributions_name_the_models_own_terms_and_a_picture_as_a_whole() -> None:
    declared = documents(notes(), picture())
    assert concepts_of(SPEC, declared).of_feature[2:] == (
        "Notes: any", "Notes: cough", "Notes: fever", "Chest: picture", "Chest: picture", "Chest: picture",
    )  # fmt: skip
    parts = np.array([0.5, 0.0, 0.0, 2.0, -1.0, 0.25, 0.25, 0.5])
    explanation = Explanation(base=-1.0, by_feature=parts, explained=1.5, rounding=1e-12)
    found = {each.concept: each.value for each in contributions_of(explanation, SPEC, declared)}
    assert found == {"Notes: cough": 2.0, "Notes: fever": -1.0, "Chest: picture": 1.0, "Sex": 0.5}
    scored = Scored(
        score=0.5,
        vector=StoredVector(spec_sha256=SPEC.digest(), size=8, indices=(3, 5), values=(1.0, 1.0)),
        coverage={},
        entity_id=None,
        contributions=contributions_of(explanation, SPEC, declared),
    )
    assert [each.text for each in reasons(scored, SPEC, declared)] == [
        "Notes: the word cough (raises)",
        "Chest (raises)",
        "Notes: without the word fever (lowers)",
    ]
