"""The schedules are worth something: each fault that is planted on purpose breaks the invariant that it should."""

from __future__ import annotations

import pytest

from tests.crash import site
from tests.crash.lane import lane
from tests.crash.mutants import MUTANTS
from tests.crash.schedules import LEASES_S, OUTPUTS, Life, Schedule, Tally, Theatre, Work

_EARLIER, _LATER = ["json", "p1", -10], ["json", "p1", -2]
ASKS = Work(rounds=[[_EARLIER], [_LATER], [["json", "p2", 0]], [["json", "p3", 0]]], asked=4)
AFTER_STORING, BEFORE_SENDING = "SqliteStore.replace scored after", "GuardedOutput.send scored before"
IN_COLUMN = Life(emr_route="score-column")
CAUGHT = {
    "sends before it stores": (Life(gate="SqliteStore.replace scored after"), IN_COLUMN, "evidence-first"),
    "answers before it is stored": (Life(gate=BEFORE_SENDING), IN_COLUMN, "evidence-first"),
    "sends under another id each time": (IN_COLUMN, IN_COLUMN, "evidence-first"),
    "names packets by chance": (Life(gate=AFTER_STORING), Life(gate=AFTER_STORING), "one-packet"),
    "keeps no arm": (Life(gate=AFTER_STORING, nth=4), Life(gate=AFTER_STORING, nth=4), "one-arm"),
    "forgets that it sent a message": (Life(emr_route="in-basket"), Life(emr_route="in-basket"), "written-once"),
    "relays nothing": (Life(gate=BEFORE_SENDING), Life(gate=BEFORE_SENDING), "delivered"),
}
"""Where two workers end, one after the other, and what is broken then."""


@pytest.fixture(scope="module")
def theatre(tmp_path_factory, bundle_files):
    folder = tmp_path_factory.mktemp("mutants")
    with lane(folder) as one:
        yield Theatre(one, site.write_site(folder, bundle_files, outputs=",".join(OUTPUTS), url=one.emr))


def broken(tally: Tally) -> set[str]:
    """Give the names of the invariants that do not hold."""
    return {problem.split(": ")[-2] for problem in tally.problems}


@pytest.mark.parametrize("mutant", [None, *CAUGHT])
def test_a_planted_fault_is_caught_by_name(theatre, mutant):
    first, second, name = CAUGHT.get(mutant, (IN_COLUMN, IN_COLUMN, None))
    schedule = Schedule(number=0, work=ASKS, generations=((first,), (second,)))
    found = broken(theatre.play(schedule, mutant=mutant))
    assert (name in found) if name else not found, found


@pytest.mark.parametrize("mutant", [None, "skips the place"])
def test_an_older_score_that_is_relayed_after_a_newer_one_is_caught(theatre, mutant):
    stage, tally = theatre.stage(mutant=mutant), Tally()
    assert theatre.run(stage, [[_EARLIER]], Life(gate=AFTER_STORING)) == ["killed"]
    stage.pass_time(LEASES_S)
    theatre.run(stage, [[_LATER]])
    theatre.run(stage, [[["relay_deliveries"]]])
    theatre.look(stage, tally, None)
    assert broken(tally) == ({"in-order"} if mutant else set())


@pytest.mark.parametrize("mutant", [None, "saves deliveries without comparing"])
def test_a_relay_that_overwrites_what_another_one_settled_is_caught(theatre, mutant):
    stage, tally = theatre.stage(mutant=mutant), Tally()
    assert theatre.run(stage, [[_EARLIER]], Life(gate=AFTER_STORING)) == ["killed"]
    stage.pass_time(LEASES_S)
    listed = Life(gate="SqliteStore.pending_deliveries after", by="SIGSTOP")
    assert theatre.put_to_sleep(stage, [[["relay_deliveries"]]], listed) == "asleep"
    theatre.run(stage, [[["relay_deliveries"]], [_LATER]])
    settled = theatre.look(stage, tally, None)
    theatre.wake()
    theatre.look(stage, tally, settled)
    assert broken(tally) == ({"settled-stays"} if mutant else set())


def test_every_mutant_is_tried():
    assert set(MUTANTS) == {*CAUGHT, "skips the place", "saves deliveries without comparing"}
