"""Every row of the fault table that is written, case by case."""

from __future__ import annotations

import pytest

from tests.faults.bed.rows import read_row
from tests.faults.bed.runner import run_case
from tests.faults.bed.table import ROWS_FOLDER, TITLES, row_file

ROWS = [read_row(file) for file in sorted(ROWS_FOLDER.glob("*/*.yaml"))]
CASES = [pytest.param(row.channel, case, id=f"{row.number:03d}-{case.name}") for row in ROWS for case in row.cases]
RUN = {"J": run_case}
"""How a case is run, by its channel."""


@pytest.mark.parametrize(("channel", "case"), CASES)
async def test_the_fault_gets_what_it_must(channel, case, bed):
    problems = await RUN[channel](case, bed)
    assert not problems, "\n".join(problems)


def test_every_row_of_the_groups_done_so_far_is_written_under_its_own_title():
    titles = {number: title for group in TITLES.values() for number, title in group.items()}
    assert {row.number: row.title for row in ROWS} == titles
    assert all(row_file(group, number) for group, numbers in TITLES.items() for number in numbers)
