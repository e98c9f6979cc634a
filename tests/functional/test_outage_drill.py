"""The outage drill, cut short: processes, HTTP, a locked store and an EMR that takes no writes."""

from __future__ import annotations

import pytest

from benchmarks.outage import PHASES, drill

SECONDS, RATE = 10.0, 6.0


@pytest.fixture(scope="module")
def drilled():
    return drill(seconds=SECONDS, rate=RATE, hurries=True)


def test_every_request_has_one_packet_and_one_score_in_the_emr(drilled):
    assert len(drilled.answers) == SECONDS * RATE
    assert (drilled.lost, drilled.twice) == (0, 0)
    assert drilled.packets == {"scored": SECONDS * RATE}
    assert drilled.deliveries == {"sent": SECONDS * RATE}


def test_every_request_is_answered_and_told_to_ask_again_only_while_the_store_is_down(drilled):
    assert {each.said for each in drilled.answers} == {"scored", "store-unavailable"}
    refused = {int(each.due_s * len(PHASES) / SECONDS) for each in drilled.answers if each.said == "store-unavailable"}
    # What had been claimed just before is refused too, and what is asked just before the store is found to be back.
    assert refused <= {0, 1, 2}


def test_packets_waited_in_the_spool_and_deliveries_for_the_emr_and_nothing_does_in_the_end(drilled):
    assert max(sample.spooled for sample in drilled.samples) > 0
    assert max(sample.pending for sample in drilled.samples) > 0
    assert (drilled.samples[-1].spooled, drilled.samples[-1].pending) == (0, 0)
