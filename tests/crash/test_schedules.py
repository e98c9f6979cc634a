"""Workers are killed at every transition, as seeded schedules say: nothing is lost, doubled or left unfinished."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.crash import site
from tests.crash.lane import lane
from tests.crash.schedules import OUTPUTS, WORKS, Schedule, Tally, Theatre, schedules

LANES = 2
ASLEEP = re.compile(
    r"SqliteStore\.(create|replace|pending_deliveries|save_delivery pending)\b.*"
    r"|FetchOnce\.fetch \w+|HostQueue\.put \w+"
)
"""Where a worker may sleep through its leases and wake up late. Past these gates it is about to write to the EMR, and
no lease can hold back what is already on its way."""


@pytest.fixture(scope="module")
def theatres(tmp_path_factory, bundle_files):
    """Give two lanes to play schedules on."""
    with ExitStack() as stack:
        made = []
        for number in range(LANES):
            folder = tmp_path_factory.mktemp(f"lane{number}")
            one = stack.enter_context(lane(folder))
            made.append(Theatre(one, site.write_site(folder, bundle_files, outputs=",".join(OUTPUTS), url=one.emr)))
        yield made


@pytest.fixture(scope="module")
def census(theatres):
    return theatres[0].census()


def played(theatres, wanted: list[Schedule]) -> Tally:
    """Play them on all lanes."""

    def on_lane(number: int) -> Tally:
        tally = Tally()
        for schedule in wanted[number::LANES]:
            tally.add(theatres[number].play(schedule))
        return tally

    total = Tally()
    with ThreadPoolExecutor(LANES) as pool:
        for tally in pool.map(on_lane, range(LANES)):
            total.add(tally)
    return total


def test_there_is_a_gate_at_every_transition(census):
    gates = {gate for passed in census.values() for gate in passed}
    for transition in (
        "create received",
        "replace scored",
        "save_delivery sent",
        "create_record sent",
        "create_record assignment",
        "create_record message",
        "create_record run",
        "create_record chunk",
        "pending_deliveries",
        "replace_record run",
        "replace_record sent",
        "POST Predictive/HANDLEEXTERNALMODELSCORES",
        "POST ADDFLOWSHEETVALUE/FlowsheetValue",
        "POST SENDMESSAGE/Message",
        "POST R4/RiskAssessment",
        "QueueFile.put",
        "QueueFile.delete",
        "fetch",
    ):
        for when in ("before", "after"):
            assert [gate for gate in gates if f"{transition} {when}" in gate], f"{transition} {when}"


def test_wherever_workers_are_killed_nothing_is_lost_doubled_or_left_unfinished(theatres, census):
    tally = played(theatres, schedules(census, count=25))
    assert tally.problems == []
    assert tally.outcomes["killed"] >= 25
    assert set(tally.outcomes) <= {"killed", "done"}


@pytest.mark.proof
def test_two_hundred_schedules_of_deaths_break_nothing(theatres, census, capsys):
    tally = played(theatres, schedules(census, count=200))
    gates = {gate for passed in census.values() for gate in passed}
    with capsys.disabled():
        sys.stdout.write(tally.told())
    assert tally.problems == []
    # A gate that only some race leads to may be missed.
    assert len(gates & set(tally.ends)) >= 0.9 * len(gates)
    assert set(tally.outcomes) <= {"killed", "done"}


@pytest.mark.parametrize("work", ["orders", "ward"])
def test_a_worker_that_slept_through_its_leases_changes_nothing_when_it_wakes(theatres, census, work):
    gates = sorted(gate for gate in census[work] if ASLEEP.fullmatch(gate))
    assert gates
    tally = Tally()
    for gate in gates[:: 2 if work == "orders" else 3]:
        tally.add(theatres[1].sleep(gate, WORKS[work]))
    assert tally.problems == []
    assert set(tally.outcomes) <= {"asleep", "done"}
