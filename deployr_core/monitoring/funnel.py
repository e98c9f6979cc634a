"""What became of every request, down to those with a label: performance is measured on what is left at the end.

The maturity switch: an outcome that comes early is known early, and those that come early are not like the others. So
while some packets are not ripe, the labels there are tell of another model than the one that runs. Measured on ripe
packets only, every label had its whole window to come in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from deployr_core.groups import Strings


class Maturity(StrEnum):
    """Which scored packets count: ``ripe`` only those whose label window has passed, ``all`` every one."""

    RIPE = "ripe"
    ALL = "all"


class Stage(StrEnum):
    """Where a request ended; every packet is in one stage.

    ``unfinished``: received, not answered. ``not-ripe``: scored, its label window has not passed, and no label is there
    or none is counted. ``overdue``: ripe, and neither observed nor censored: the label extractor has yet to look.
    """

    UNFINISHED = "unfinished"
    REJECTED = "rejected"
    FAILED = "failed"
    ABSTAINED = "abstained"
    NOT_RIPE = "not-ripe"
    OVERDUE = "overdue"
    CENSORED = "censored"
    LABELLED = "labelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """How many packets ended in a stage, and why: the reason codes of the glossary, commonest first."""

    stage: Stage
    packets: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Funnel:
    """From requested to labelled: ``requested`` less all of ``lost`` is ``labelled``.

    ``scored``: answered with a score, whatever became of the label. ``countable``: scored and, by the switch, old
    enough to count. ``labelled_early``: labels of packets that are not ripe; counted only where the switch is at
    ``all``. ``label_share``: labelled among countable; None where there are none.
    """

    maturity: Maturity
    requested: int
    scored: int
    countable: int
    labelled: int
    labelled_early: int
    label_share: float | None
    lost: tuple[Lost, ...]


def stages(
    kinds: Strings,
    label_kinds: Strings,
    ripe: NDArray[np.bool_],
    *,
    maturity: Maturity,
) -> NDArray[np.str_]:
    """Give each packet's stage, by the value of `Stage`, shape (n_packets,): ``labelled`` are the rows to measure.

    Args:
        kinds: of the outcome, as a packet's tag says: ``received``, ``scored``, ``abstained``, ``failed`` or
            ``rejected``.
        label_kinds: ``observed``, ``censored``, or empty where there is no label; read of scored packets only.
        ripe: whether the label window has passed; read of scored packets only.
        maturity: the switch.

    Raises:
        ValueError: shapes differ, or a kind that there is not.
    """
    kinds, label_kinds, ripe = np.asarray(kinds), np.asarray(label_kinds), np.asarray(ripe, dtype=np.bool_)
    if kinds.shape != label_kinds.shape or kinds.shape != ripe.shape or kinds.ndim != 1:
        raise ValueError("expected a kind, a label's kind and whether it is ripe of each packet, shape (n_packets,)")
    if not np.isin(kinds, (*_ENDED, "scored")).all():
        raise ValueError(f"expected kinds of {', '.join((*_ENDED, 'scored'))}")
    if not np.isin(label_kinds, ("observed", "censored", "")).all():
        raise ValueError("expected labels' kinds of observed, censored or nothing")
    scored = kinds == "scored"
    counted = scored & (ripe | (maturity is Maturity.ALL))
    found = np.full(kinds.shape, Stage.NOT_RIPE.value, dtype=f"U{max(len(stage) for stage in Stage)}")
    for kind, stage in _ENDED.items():
        found[kinds == kind] = stage
    found[scored & ripe] = Stage.OVERDUE
    found[counted & (label_kinds == "censored")] = Stage.CENSORED
    found[counted & (label_kinds == "observed")] = Stage.LABELLED
    return found


def funnel(
    kinds: Strings,
    reasons: Strings,
    label_kinds: Strings,
    label_reasons: Strings,
    ripe: NDArray[np.bool_],
    *,
    maturity: Maturity,
) -> Funnel:
    """Count packets by stage, with the reasons.

    Args:
        kinds: see `stages`, as for ``label_kinds``, ``ripe`` and ``maturity``.
        reasons: the code with which a packet was rejected, failed or abstained; empty where there is none.
        label_kinds: see `stages`.
        label_reasons: the code with which a label was censored; empty where there is none.
        ripe: see `stages`.
        maturity: the switch.

    Raises:
        ValueError: as for `stages`, or reasons of another shape.
    """
    stage_of_packet = stages(kinds, label_kinds, ripe, maturity=maturity)
    reasons, label_reasons = np.asarray(reasons), np.asarray(label_reasons)
    if reasons.shape != stage_of_packet.shape or label_reasons.shape != stage_of_packet.shape:
        raise ValueError("expected a reason for each packet, and one for its label, shape (n_packets,)")
    scored = np.asarray(kinds) == "scored"
    countable = int((scored & (np.asarray(ripe) | (maturity is Maturity.ALL))).sum())
    lost = []
    for stage in Stage:
        within = stage_of_packet == stage
        if stage is Stage.LABELLED or not within.any():
            continue
        lost.append(
            Lost(
                stage=stage,
                packets=int(within.sum()),
                reasons=_counted((label_reasons if stage is Stage.CENSORED else reasons)[within].tolist()),
            )
        )
    labelled = int((stage_of_packet == Stage.LABELLED).sum())
    return Funnel(
        maturity=maturity,
        requested=stage_of_packet.size,
        scored=int(scored.sum()),
        countable=countable,
        labelled=labelled,
        labelled_early=int((scored & ~np.asarray(ripe) & (np.asarray(label_kinds) == "observed")).sum()),
        label_share=labelled / countable if countable else None,
        lost=tuple(lost),
    )


_ENDED = {
    "received": Stage.UNFINISHED,
    "rejected": Stage.REJECTED,
    "failed": Stage.FAILED,
    "abstained": Stage.ABSTAINED,
}


def _counted(reasons: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Count the reasons that were given, commonest first, then by name."""
    counted = Counter(reason for reason in reasons if reason)
    return tuple(sorted(counted.items(), key=lambda each: (-each[1], each[0])))
