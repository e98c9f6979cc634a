"""Every row of the fault table that is written, case by case."""

from __future__ import annotations

import pytest

from tests.faults.bed.alerts import run_alert_case
from tests.faults.bed.hooks import run_hook_case
from tests.faults.bed.labels import run_label_case
from tests.faults.bed.models import run_model_case
from tests.faults.bed.outages import run_outage_case
from tests.faults.bed.rows import channel_of, read_row
from tests.faults.bed.runner import run_case
from tests.faults.bed.stores import run_store_case
from tests.faults.bed.table import ROWS_FOLDER, TITLES, row_file
from tests.faults.bed.writes import run_write_case

ROWS = [read_row(file) for file in sorted(ROWS_FOLDER.glob("*/*.yaml"))]
CASES = [
    pytest.param(channel_of(row, case), case, id=f"{row.number:03d}-{case.name}") for row in ROWS for case in row.cases
]
RUN = {
    "J": run_case,
    "B": run_alert_case,
    "H": run_hook_case,
    "L": run_label_case,
    "M": run_model_case,
    "O": run_outage_case,
    "S": run_store_case,
    "W": run_write_case,
}
"""How a case is run, by its channel."""


@pytest.mark.parametrize(("channel", "case"), CASES)
async def test_the_fault_gets_what_it_must(channel, case, bed):
    problems = await RUN[channel](case, bed)
    assert not problems, "\n".join(problems)


def test_every_row_is_written_once_under_its_own_number_and_title():
    # Which rows are still missing is for `make faults` to say.
    written = {(group, number) for group, numbers in TITLES.items() for number in numbers if row_file(group, number)}
    assert sorted((row.number, row.title) for row in ROWS) == sorted(
        (number, TITLES[group][number]) for group, number in written
    )
