"""What became of every request, by hand; and why unripe labels mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.monitoring.funnel import Funnel, Lost, Maturity, Stage, funnel, stages

# Kind, reason, label's kind, label's reason, ripe.
PACKETS = [
    ("received", "", "", "", False),
    ("rejected", "unknown-patient", "", "", False),
    ("failed", "emr-timeout", "", "", False),
    ("failed", "deadline", "", "", True),
    ("failed", "emr-timeout", "", "", True),
    ("abstained", "sparse", "", "", False),
    ("scored", "", "", "", False),
    ("scored", "", "observed", "", False),
    ("scored", "", "censored", "died", False),
    ("scored", "", "", "", True),
    ("scored", "", "censored", "no-result", True),
    ("scored", "", "observed", "", True),
    ("scored", "", "observed", "", True),
]


def funnelled(maturity: Maturity, packets: list[tuple[Any, ...]] = PACKETS) -> Funnel:
    kinds, reasons, label_kinds, label_reasons, ripe = zip(*packets, strict=True) if packets else [()] * 5
    texts = [np.array(each, dtype=np.str_) for each in (kinds, reasons, label_kinds, label_reasons)]
    return funnel(*texts, np.array(ripe, dtype=bool), maturity=maturity)


def test_every_packet_is_in_one_stage_with_the_reasons_commonest_first() -> None:
    found = funnelled(Maturity.RIPE)
    assert found.lost == (
        Lost(stage=Stage.UNFINISHED, packets=1, reasons=()),
        Lost(stage=Stage.REJECTED, packets=1, reasons=(("unknown-patient", 1),)),
        Lost(stage=Stage.FAILED, packets=3, reasons=(("emr-timeout", 2), ("deadline", 1))),
        Lost(stage=Stage.ABSTAINED, packets=1, reasons=(("sparse", 1),)),
        Lost(stage=Stage.NOT_RIPE, packets=3, reasons=()),
        Lost(stage=Stage.OVERDUE, packets=1, reasons=()),
        Lost(stage=Stage.CENSORED, packets=1, reasons=(("no-result", 1),)),
    )
    assert (found.requested, found.scored, found.countable, found.labelled) == (13, 7, 4, 2)
    assert found.label_share == 2 / 4


@pytest.mark.parametrize("maturity", list(Maturity))
def test_what_is_lost_and_what_is_labelled_add_up_to_what_was_requested(maturity: Maturity) -> None:
    found = funnelled(maturity)
    assert sum(each.packets for each in found.lost) + found.labelled == found.requested


def test_with_the_switch_at_all_labels_that_came_early_count_and_are_told() -> None:
    found = funnelled(Maturity.ALL)
    assert (found.countable, found.labelled, found.labelled_early) == (7, 3, 1)
    lost = {each.stage: each for each in found.lost}
    assert lost[Stage.CENSORED].reasons == (("died", 1), ("no-result", 1))
    assert lost[Stage.NOT_RIPE].packets == 1


def test_early_labels_mislead_where_outcomes_come_earlier_than_their_absence_is_known() -> None:
    """Of 100 packets a day 20 have the outcome at once; its absence is known when the window of 2 days has passed.

    On the last day of three, ripe packets are those of the first day: 20 of 100. Counted as labels come, the two days
    after add 40 outcomes, and nobody without.
    """
    day = [("scored", "", "observed", "", False)] * 20 + [("scored", "", "", "", False)] * 80
    packets = [("scored", "", "observed", "", True)] * 100 + day + day
    outcome = np.r_[np.ones(20), np.zeros(80), np.tile(np.r_[np.ones(20), np.zeros(80)], 2)]
    texts = [np.array([each[place] for each in packets]) for place in (0, 2)]
    ripe = np.array([each[4] for each in packets])
    share = {
        maturity: outcome[stages(*texts, ripe, maturity=maturity) == Stage.LABELLED].mean() for maturity in Maturity
    }
    assert share[Maturity.RIPE] == 20 / 100
    assert share[Maturity.ALL] == 60 / 140


def test_no_packets_are_an_empty_funnel() -> None:
    found = funnelled(Maturity.RIPE, [])
    assert (found.requested, found.lost, found.label_share) == (0, (), None)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="expected kinds of received"):
        funnelled(Maturity.RIPE, [("scoring", "", "", "", True)])
    with pytest.raises(ValueError, match="expected labels' kinds"):
        funnelled(Maturity.RIPE, [("scored", "", "not-yet", "", True)])
