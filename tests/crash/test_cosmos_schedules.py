"""The same on a Cosmos DB that throttles, asks to retry, is away, commits without an answer, or hangs up."""

from __future__ import annotations

import sys

import pytest

from tests.crash import site
from tests.crash.keepers import scripted
from tests.crash.lane import lane
from tests.crash.schedules import OUTPUTS, Tally, Theatre, schedules, with_failing_store


@pytest.fixture(scope="module")
def theatre(tmp_path_factory, bundle_files, cosmos_address, azurite):
    folder = tmp_path_factory.mktemp("cosmos")
    with lane(folder) as one, scripted(cosmos_address, blobs=azurite) as keeper:
        settings = site.write_site(folder, bundle_files, outputs=",".join(OUTPUTS), url=one.emr)
        yield Theatre(one, settings, keeper=keeper)


@pytest.fixture(scope="module")
def census(theatre):
    return theatre.census()


def played(theatre, census, *, count, begin=0):
    tally = Tally()
    for schedule in with_failing_store(schedules(census, count=count))[begin:]:
        tally.add(theatre.play(schedule))
    return tally


def test_on_a_cosmos_db_in_trouble_nothing_is_lost_doubled_or_left_unfinished(theatre, census):
    tally = played(theatre, census, count=6)
    assert tally.problems == []
    assert set(tally.outcomes) == {"killed", "done"}


@pytest.mark.proof
def test_two_hundred_schedules_on_a_cosmos_db_in_trouble_break_nothing(theatre, census, capsys):
    tally = played(theatre, census, count=200)
    with capsys.disabled():
        sys.stdout.write(tally.told())
    assert tally.problems == []
    assert set(tally.outcomes) <= {"killed", "done"}
