"""Rows counted into cells, with what patients' rows have in common, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.monitoring.drift_cells import SparseRows, cell_of_entry, counted, edges_of

NAN = np.nan
COLUMNS = np.array([[1.0, NAN], [2.0, 5.0], [NAN, NAN], [4.0, 5.0]])


def test_vectors_and_columns_with_gaps_are_the_same_rows() -> None:
    vectors = SparseRows.of_vectors([((0,), (1.0,)), ((0, 1), (2.0, 5.0)), ((), ()), ((0, 1), (4.0, 5.0))], size=2)
    columns = SparseRows.of_columns(COLUMNS)
    for name in ("starts", "indices", "values"):
        assert getattr(vectors, name).tolist() == getattr(columns, name).tolist()
    assert vectors.rows == columns.rows == 4


def test_edges_are_quantiles_that_are_values_and_a_value_at_an_edge_is_above_it() -> None:
    rows = SparseRows.of_columns(np.array([[1.0], [2.0], [3.0], [4.0], [NAN]]))
    edges = edges_of(rows, bins=4)
    assert edges.tolist() == [[1.0, 2.0, 3.0]]
    assert cell_of_entry(rows, edges).tolist() == [2, 3, 4, 4]


def test_a_variable_without_values_has_one_cell_for_whatever_comes() -> None:
    edges = edges_of(SparseRows.of_columns(np.array([[NAN], [NAN]])), bins=5)
    assert np.isinf(edges).all()
    assert cell_of_entry(SparseRows.of_columns(np.array([[-1e9], [1e9]])), edges).tolist() == [1, 1]


def test_rows_are_counted_into_cells_and_what_is_absent_into_the_first() -> None:
    rows = SparseRows.of_columns(COLUMNS)
    cells = counted(rows, np.array([[2.0], [9.0]]), np.array([7, 7, 8, 9]))
    assert cells.counts.tolist() == [[1, 1, 2], [2, 2, 0]]
    assert (cells.rows, cells.patients) == (4, 3)
    assert cells.held.tolist() == [[1, 1, 2], [1, 2, 0]]
    assert cells.shares.sum(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("copies", [1, 4, 26])
def test_rows_that_are_copies_count_as_one(copies: int) -> None:
    """The variance of a share of copied rows is that of so many times fewer; a degree of freedom goes to the mean."""
    there = np.r_[np.ones(30), np.full(70, NAN)]
    rows = SparseRows.of_columns(np.repeat(there, copies)[:, np.newaxis])
    cells = counted(rows, np.zeros((1, 0)), np.repeat(np.arange(100), copies))
    assert cells.spread.tolist() == [pytest.approx([copies * 100 / 99] * 2)]


def test_rows_that_differ_more_within_a_patient_than_between_are_not_counted_for_more_than_they_are() -> None:
    rows = SparseRows.of_columns(np.tile([[1.0], [NAN]], (50, 1)))
    assert counted(rows, np.zeros((1, 0)), np.arange(100) // 2).spread.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"starts": np.array([0, 1])}, "from 0 to the number of entries", id="entries left over"),
        pytest.param({"starts": np.array([0, 3, 2])}, "from 0 to the number of entries", id="backwards"),
        pytest.param({"indices": np.array([0, 2])}, "from 0 to below 2", id="no such variable"),
        pytest.param({"values": np.array([1.0, NAN])}, "finite values", id="not a number"),
        pytest.param({"values": np.array([1.0])}, "a value for each index", id="too few values"),
    ],
)
def test_rows_that_cannot_be_are_refused(changes: dict[str, Any], complaint: str) -> None:
    whole = {"starts": np.array([0, 1, 2]), "indices": np.array([0, 1]), "values": np.array([1.0, 2.0])}
    with pytest.raises(ValueError, match=complaint):
        SparseRows(size=2, **{**whole, **changes})


def test_no_rows_are_not_counted() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        counted(SparseRows.of_columns(np.zeros((0, 2))), np.zeros((2, 0)), np.zeros(0, dtype=np.int64))
