"""A reference period as a file: it comes back as it was, tells of nobody, and is held against its own bundle only."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from deployr_core.monitoring.drift import DriftReference, drifts
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.drift_reference import (
    ReferenceInvalid,
    ReferenceOfAnotherBundle,
    ReferencePeriod,
    recurrence,
)
from deployr_core.monitoring.served_rows import DriftKind, ServedRows, part_of_the_week
from tests.unit.deployr_core.monitoring.served import BEGIN, ward

DIGEST = "b" * 64


def fitted(rows: ServedRows) -> ReferencePeriod:
    return ReferencePeriod.of(rows, model_id="m", version="1", bundle_sha256=DIGEST)


@pytest.fixture(scope="module")
def reference() -> ReferencePeriod:
    return fitted(ward(56))


def later(**changes: float) -> ServedRows:
    return ward(28, since=BEGIN + timedelta(days=56), seed=1, **changes)


def test_what_is_written_is_read_as_it_was_and_written_again_as_the_same_bytes(reference: ReferencePeriod) -> None:
    content = reference.to_json()
    again = ReferencePeriod.from_json(content)
    assert again.to_json() == content
    assert (again.since, again.until, again.requests, again.patients) == (
        reference.since,
        reference.until,
        reference.requests,
        reference.patients,
    )
    for kind in (each for each in DriftKind if each is not DriftKind.VOLUME):
        rows = later().of_kind(kind)
        one, other = reference.drift(kind, rows), again.drift(kind, rows)
        assert one is not None
        assert other is not None
        for column in ("psi", "p", "q", "score_shift", "share_before", "share_now"):
            assert np.allclose(getattr(one, column), getattr(other, column), equal_nan=True), (kind, column)


def test_held_against_a_file_features_drift_as_they_do_against_the_rows_themselves(reference: ReferencePeriod) -> None:
    before, now = ward(56).of_kind(DriftKind.FEATURES), later(lost=0.1).of_kind(DriftKind.FEATURES)
    direct = drifts(
        DriftReference.of(before.names, before.rows, before.patients, scores=before.scores), now.rows, now.patients
    )
    held = reference.drift(DriftKind.FEATURES, now)
    assert held is not None
    # Of features that many patients have and lack, nothing was merged.
    many = (direct.share_before > 0.2) & (direct.share_before < 0.8)
    assert np.allclose(held.psi[many], direct.psi[many], rtol=1e-4)
    assert np.allclose(held.p[many], direct.p[many], rtol=1e-2)


def test_no_cell_of_values_is_of_fewer_than_ten_patients() -> None:
    rows = ward(56)
    # One patient has a value of their own.
    values = rows.features.values.copy()
    values[rows.features.indices == 59] = 2.0
    first = np.flatnonzero(rows.features.indices == 59)[0]
    values[first] = 77.5
    content = fitted(replace(rows, features=replace(rows.features, values=values))).to_json()
    assert b"77.5" not in content
    for kind in json.loads(content)["kinds"].values():
        for _, edges, _, few, counts, *_ in kind["variables"]:
            assert len(counts) == len(edges) + 2
            assert all(count == 0 or count >= 10 for place, count in enumerate(counts) if place != few)


def test_of_what_one_to_nine_patients_have_the_file_says_no_number() -> None:
    rows = ward(56)
    contents = []
    for patients in (1, 9):
        named = np.where(np.isin(rows.patients, np.unique(rows.patients)[:patients]), "rare", "usual")
        contents.append(json.loads(fitted(replace(rows, people={"ward": named})).to_json())["kinds"]["people"])
    assert contents[0]["variables"][0][:5] == contents[1]["variables"][0][:5]
    assert contents[0]["variables"][0][2] == ["usual", "other"]


def test_what_few_had_is_no_drift_when_few_have_it_again_and_one_when_all_do() -> None:
    rows = ward(56)
    rare = np.where(np.isin(rows.patients, np.unique(rows.patients)[:5]), "rare", "usual")
    reference = fitted(replace(rows, people={"ward": rare}))

    def q(share: float) -> float:
        now = later()
        patients = np.unique(now.patients)
        named = np.where(np.isin(now.patients, patients[: round(share * patients.size)]), "rare", "usual")
        found = reference.drift(DriftKind.PEOPLE, replace(now, people={"ward": named}).of_kind(DriftKind.PEOPLE))
        assert found is not None
        return float(found.q[0])

    assert q(0.01) > 0.2
    assert q(0.5) < 1e-6


def test_a_name_that_was_never_there_is_found() -> None:
    reference = fitted(ward(56))
    now = later()
    found = reference.drift(
        DriftKind.CALLS, replace(now, calls={**now.calls, "channel": np.full(now.rows, "bpa")}).of_kind(DriftKind.CALLS)
    )
    assert found is not None
    assert found.names == ("channel", "part of the week")
    assert found.q[0] < 1e-9 < found.q[1]


def test_another_bundle_is_refused_in_a_sentence(reference: ReferencePeriod) -> None:
    reference.expect_bundle(DIGEST)
    with pytest.raises(ReferenceOfAnotherBundle, match="bbbbbbbbbbbb, got those of cccccccccccc; make one"):
        reference.expect_bundle("c" * 64)


def test_features_of_another_declaration_are_refused(reference: ReferencePeriod) -> None:
    now = later()
    other = replace(now, names=("g0", *now.names[1:])).of_kind(DriftKind.FEATURES)
    with pytest.raises(ValueError, match="expected the features of the reference period's bundle"):
        reference.drift(DriftKind.FEATURES, other)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"layout": 2}'])
def test_what_is_no_reference_is_refused(content: bytes) -> None:
    with pytest.raises(ReferenceInvalid, match="expected a reference period"):
        ReferencePeriod.from_json(content)


def test_a_file_whose_cells_do_not_hold_its_rows_is_refused(reference: ReferencePeriod) -> None:
    held = json.loads(reference.to_json())
    held["kinds"]["scores"]["rows"] += 1
    with pytest.raises(ReferenceInvalid):
        ReferencePeriod.from_json(json.dumps(held).encode())


def test_a_handful_of_patients_makes_no_reference() -> None:
    with pytest.raises(ValueError, match="at least 10 patients, got"):
        fitted(ward(2, a_day=8.0))


def test_recurrence_of_one_row_each_is_one_and_of_four_each_is_four() -> None:
    assert recurrence(np.arange(7)) == 1.0
    assert recurrence(np.repeat(np.arange(7), 4)) == 4.0
    # Of rows 1, 1 and 4: 18 over 6.
    assert recurrence(np.array([0, 1, 2, 2, 2, 2])) == 3.0


def test_parts_of_the_week_by_hand() -> None:
    # Monday 00:00, Monday 08:00, Friday 23:00, Saturday 00:00, Sunday 16:00.
    hours = np.array([0, 8, 4 * 24 + 23, 5 * 24, 6 * 24 + 16])
    assert part_of_the_week(hours).tolist() == [
        "weekday, night",
        "weekday, day",
        "weekday, evening",
        "weekend, night",
        "weekend, evening",
    ]


def test_rows_without_a_score_have_no_features_that_count() -> None:
    rows = ward(3)
    scores = rows.scores.copy()
    scores[:5] = np.nan
    kind = replace(rows, scores=scores).of_kind(DriftKind.FEATURES)
    assert kind.rows.rows == rows.rows - 5
    taken = SparseRows.of_columns(np.array([[1.0, np.nan], [np.nan, 2.0]])).taken(np.array([1]))
    assert (taken.starts.tolist(), taken.indices.tolist(), taken.values.tolist()) == ([0, 1], [1], [2.0])
