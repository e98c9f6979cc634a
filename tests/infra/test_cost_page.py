"""The cost page's tables are what its own prices and quantities give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")


def _tables():
    """Give the rows of each table that ends in a total: how many, unit price, dollars."""
    for block in re.findall(r"\| what \| how many .*?\*\*total\*\*[^\n]*", PAGE, re.DOTALL):
        lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
        numbers = [
            [float(cell.replace(",", "")) if cell else None for cell in (row[1], row[3], row[4])] for row in lines
        ]
        yield numbers[:-1], numbers[-1][2]


def test_there_is_a_table_for_each_of_the_two_settings_and_for_a_hospital():
    assert len(list(_tables())) == 3


@pytest.mark.parametrize("place", range(3))
def test_every_line_is_how_many_times_the_price_and_the_total_is_their_sum(place):
    rows, total = list(_tables())[place]
    for how_many, price, dollars in rows:
        assert how_many * price == pytest.approx(dollars, abs=0.0051)
    assert sum(dollars for *_, dollars in rows) == pytest.approx(total, abs=0.005)


def test_the_papers_five_weeks_stay_under_its_300_dollars_either_way():
    totals = [total for _, total in _tables()]
    assert totals[0] < totals[1] < 300
