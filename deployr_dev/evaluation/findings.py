"""What a reader of a report must not miss: the groups that the model serves worse, or that it cannot speak of."""

from __future__ import annotations

from dataclasses import dataclass

from deployr_dev.evaluation.records import Evaluation, Group, GroupFigures, Measured, TooSmall
from deployr_dev.evaluation.words import figure, misjudgement, number


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One group, as ``sex: female``, and what there is to know about it."""

    group: str
    what: str


def measured_groups(evaluation: Evaluation) -> int:
    """Count the groups that are large enough to be measured."""
    return len(_measured_groups(evaluation))


def ranked_worse(evaluation: Evaluation) -> tuple[Finding, ...]:
    """Name the groups whose AUROC is lower than everybody's by more than its own interval."""
    everybody = evaluation.auroc
    if not isinstance(everybody, Measured):
        return ()
    return tuple(
        Finding(group=name, what=f"AUROC {figure(figures.auroc)}, everybody {number(everybody.value)}")
        for name, figures in _measured_groups(evaluation)
        if isinstance(figures.auroc, Measured) and figures.auroc.high < everybody.value
    )


def misjudged(evaluation: Evaluation) -> tuple[Finding, ...]:
    """Name the groups of which scores are too high or too low on the whole, by more than the interval."""
    return tuple(
        Finding(group=name, what=f"scores {off}")
        for name, figures in _measured_groups(evaluation)
        if (off := misjudgement(figures.calibration_in_the_large)) is not None
    )


def too_small(evaluation: Evaluation) -> tuple[Finding, ...]:
    """Name the groups that no figure is given for."""
    return tuple(
        Finding(group=_named(grouping.name, group), what=group.figures.why)
        for grouping in evaluation.groupings
        for group in grouping.groups
        if isinstance(group.figures, TooSmall)
    )


def _measured_groups(evaluation: Evaluation) -> list[tuple[str, GroupFigures]]:
    return [
        (_named(grouping.name, group), group.figures)
        for grouping in evaluation.groupings
        for group in grouping.groups
        if isinstance(group.figures, GroupFigures)
    ]


def _named(grouping: str, group: Group) -> str:
    return f"{grouping}: {group.name}"
