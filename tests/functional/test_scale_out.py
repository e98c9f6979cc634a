"""Two hosts over one store and one queue, cut short: both are killed once, and everything is there once."""

from __future__ import annotations

import pytest

from benchmarks.scale_drill import QUICK, scaled_out
from deployr_cli.up_azure import missing

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def scaled():
    if (what := missing()) is not None:
        pytest.skip(what)
    [found] = scaled_out(QUICK)
    return found


def test_every_request_has_one_packet_and_one_score_in_the_emr_though_hosts_are_killed(scaled):
    counts = scaled.counts
    assert scaled.kills == 2
    assert counts.wanted == QUICK.warm * 2 + QUICK.calm + QUICK.killed + QUICK.patients
    assert (counts.lost, counts.twice, counts.written_twice) == (0, 0, 0)
    assert counts.packets == counts.wanted
    assert counts.states["sent"] == counts.wanted


def test_a_request_that_two_hosts_get_at_once_has_one_answer(scaled):
    assert all(each.is_scored and len(each.packets) == 1 for each in scaled.killed.answers)


def test_requests_of_a_killed_host_are_answered_by_another(scaled):
    # Whoever is killed has at least the request by which it was chosen.
    assert sum(scaled.killed.refusals.values()) >= scaled.kills


def test_a_slot_that_fires_on_both_hosts_scores_each_patient_once_though_chunks_come_twice(scaled):
    batch = scaled.batch
    assert (batch.state, batch.totals) == ("complete", {"scored": QUICK.patients})
    assert batch.patients == QUICK.patients
