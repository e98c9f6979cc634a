"""Figures of every kind of target, to be measured with intervals that resample patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deployr_core.bootstrap import Floats, Ratios, Statistic
from deployr_core.metrics import BOTH_CLASSES, Ranking, checked_rows
from deployr_core.outputs import Outputs, Target

SOME = "at least one row"


def headline_statistics(outputs: Outputs, labels: Floats, answers: Floats) -> list[Statistic]:
    """Give what a manifest and a table of tasks say of a model; `deployr_core.bootstrap.measure` measures it.

    Args:
        outputs: what is predicted.
        labels: as `Target` has them, shape (n_rows,) or (n_rows, n_labels).
        answers: what the model gave, shape (n_rows, n_outputs).

    Returns:
        ``auroc`` of a probability. ``auroc`` of several: the mean over one class against the rest, or over labels;
        and ``auroc.NAME`` of each. Of a number ``mae``, ``rmse`` and ``bias`` (predicted less observed) in its unit,
        and ``r2``, which is 1.0 at best and 0.0 for the mean.

    Raises:
        ValueError: no rows, or labels or answers of another shape or range.
    """
    if answers.ndim != 2 or answers.shape[1] != len(outputs.names) or len(labels) != len(answers) or not len(labels):
        raise ValueError("expected a label, and one number for each output, of at least one row")
    match outputs.target:
        case Target.REGRESSION:
            return [NumberErrors.of(labels, answers[:, 0])]
        case Target.BINARY:
            return [MeanAuroc.of(("auroc",), labels.reshape(-1, 1), answers)]
        case _:
            columns = one_column_each(outputs, labels)
            return [MeanAuroc.of(("auroc", *(f"auroc.{name}" for name in outputs.names)), columns, answers)]


def class_statistics(labels: Floats, answers: Floats) -> list[Statistic]:
    """Give what else there is to measure of classes: ``accuracy``, of the likeliest class, and ``log_loss`` in nats.

    Source: Good (1952), J. R. Stat. Soc. B 14:107-114, for the loss.
    """
    right = (np.argmax(answers, axis=1) == labels).astype(np.float64)
    given = answers[np.arange(len(labels)), labels.astype(np.int64)]
    surprise = -np.log(given, out=np.full(given.shape, np.nan), where=given > 0.0)
    impossible = "no class that happened and that the model called impossible, so that the loss is infinite"
    return [
        Ratios(
            names=("accuracy", "log_loss"),
            lacks=(SOME, impossible),
            numerators=np.column_stack([right, surprise]),
            denominators=np.ones((len(labels), 2)),
            shares=(True, False),
        )
    ]


def one_column_each(outputs: Outputs, labels: Floats) -> Floats:
    """Give labels as 0.0 or 1.0 for each class or label, shape (n_rows, n_outputs)."""
    if outputs.target is Target.MULTICLASS:
        columns: Floats = (labels[:, np.newaxis] == np.arange(len(outputs.names))).astype(np.float64)
        return columns
    return labels.reshape(len(labels), -1)


def label_means(outputs: Outputs, labels: Floats) -> dict[str, float]:
    """Give, by output, the share of rows of that class or with that label; of a number, its mean."""
    means = one_column_each(outputs, labels).mean(axis=0)
    return dict(zip(outputs.names, means.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanAuroc:
    """The AUROC of each column, and before them their mean where there are several."""

    names: tuple[str, ...]
    rankings: tuple[Ranking, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], labels: Floats, answers: Floats) -> MeanAuroc:
        """Rank checked rows once; ``labels`` and ``answers`` have shape (n_rows, n_columns)."""
        columns = zip(labels.T, answers.T, strict=True)
        return cls(names=names, rankings=tuple(Ranking.of(*checked_rows(*column)) for column in columns))

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say what rows must have."""
        if len(self.names) == 1:
            return (BOTH_CLASSES,)
        each = tuple(f"rows with and without {name.partition('.')[2]}" for name in self.names[1:])
        return ("rows with and without each class or label", *each)

    def measured(self, weights: Floats) -> Floats:
        """Give them under each row of weights; NaN where a column is all of one kind."""
        areas = np.column_stack([ranking.measured(weights)[:, 0] for ranking in self.rankings])
        return areas if len(self.names) == 1 else np.column_stack([areas.mean(axis=1), areas])


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberErrors:
    """How far predicted numbers are off."""

    observed: Floats
    errors: Floats
    names: tuple[str, ...] = ("mae", "rmse", "bias", "r2")
    lacks: tuple[str, ...] = (SOME, SOME, SOME, "observed numbers that are not all the same")

    @classmethod
    def of(cls, labels: Floats, predicted: Floats) -> NumberErrors:
        """Take finite numbers, shape (n_rows,) each."""
        if labels.shape != predicted.shape or not (np.isfinite(labels).all() and np.isfinite(predicted).all()):
            raise ValueError("expected finite labels and predictions of one shape (n_rows,)")
        return cls(observed=labels, errors=predicted - labels)

    def measured(self, weights: Floats) -> Floats:
        """Give them under each row of weights."""
        total = weights.sum(axis=1)
        means = [weights @ column / total for column in (np.abs(self.errors), self.errors**2, self.errors)]
        centre = weights @ self.observed / total
        spread = (weights * (self.observed[np.newaxis] - centre[:, np.newaxis]) ** 2).sum(axis=1) / total
        explained = np.full(len(weights), np.nan)
        # What is left of equal numbers after taking their mean away is rounding, not spread.
        apart = spread > 1e-24 * np.maximum(1.0, centre**2)
        np.divide(means[1], spread, out=explained, where=apart)
        return np.column_stack([means[0], np.sqrt(means[1]), means[2], 1.0 - explained])
