"""How several classes, several labels or numbers do: every figure with its interval. One outcome is in `binary`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, NotMeasurable, Ratios, Statistic, measure
from deployr_core.calibration import CalibrationBin, calibration_curve
from deployr_core.metrics import A_POSITIVE, BOTH_CLASSES, Ranking, checked_patients, checked_rows
from deployr_core.monitoring.binary import BinaryPerformance, binary_performance
from deployr_core.monitoring.number_errors import NumberPerformance, number_performance
from deployr_core.outputs import Outputs, Target
from deployr_core.target_figures import (
    SOME,
    class_statistics,
    headline_statistics,
    one_column_each,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassPerformance:
    """Probabilities of classes against what happened; the alert of a row is its likeliest class.

    ``figures``: ``auroc`` (mean over one class against the rest), ``auroc.NAME``, ``average_precision.NAME``,
    ``prevalence.NAME``, ``sensitivity.NAME``, ``ppv.NAME``, ``accuracy``, ``log_loss`` and ``brier_score``, which is
    summed over classes, so that it goes from 0 to 2. ``confusion``: rows by observed class, then by likeliest.
    ``shares``: the same as shares of the observed class. ``calibration``: by class.
    """

    names: tuple[str, ...]
    rows: int
    patients: int
    figures: Mapping[str, Figure]
    confusion: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[Figure, ...], ...]
    calibration: Mapping[str, tuple[CalibrationBin, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPerformance:
    """Each label as a binary one, and the means over labels: ``auroc``, ``average_precision`` and ``brier_score``."""

    rows: int
    patients: int
    figures: Mapping[str, Figure]
    by_label: Mapping[str, BinaryPerformance]


AnyPerformance = BinaryPerformance | ClassPerformance | LabelPerformance | NumberPerformance


def performance(
    outputs: Outputs,
    labels: Floats,
    answers: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> AnyPerformance:
    """Measure answers against what happened, whatever is predicted.

    Args:
        outputs: what is predicted.
        labels: as `Target` has them, shape (n_rows,) or (n_rows, n_labels).
        answers: what the model gave, shape (n_rows, n_outputs).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from.
        threshold: the deployment's; only of a binary outcome.
        resamples: of each interval.
        weights: of the rows, such as inverse probabilities of being labelled; None is 1 each.

    Raises:
        NotMeasurable: no rows.
        ValueError: an argument that cannot be.
    """
    if len(labels) == 0:
        raise NotMeasurable("expected at least one row with a label")
    if outputs.target is Target.BINARY:
        return binary_performance(
            labels, answers[:, 0], patients, rng=rng, threshold=threshold, resamples=resamples, weights=weights
        )
    statistics = headline_statistics(outputs, labels, answers)
    patients = checked_patients(patients, np.empty(len(labels)))
    rows, held = len(labels), np.unique(patients).size
    if outputs.target is Target.REGRESSION:
        return number_performance(outputs, labels, answers, patients, rng=rng, resamples=resamples, weights=weights)
    columns = one_column_each(outputs, labels)
    if outputs.target is Target.MULTILABEL:
        precision = _MeanPrecision.of(("average_precision",), columns, answers)
        figures = measure(
            [*statistics, precision, _mean_brier(columns, answers, labels_each=len(outputs.names))],
            patients,
            rng=rng,
            resamples=resamples,
            weights=weights,
        )
        return LabelPerformance(
            rows=rows,
            patients=held,
            figures={name: figures[name] for name in ("auroc", "average_precision", "brier_score")},
            by_label={
                name: binary_performance(
                    columns[:, place], answers[:, place], patients, rng=rng, resamples=resamples, weights=weights
                )
                for place, name in enumerate(outputs.names)
            },
        )
    return _classes(outputs.names, statistics, labels, answers, patients, rng=rng, resamples=resamples, weights=weights)


def confusion_counts(labels: Floats, answers: Floats) -> tuple[tuple[int, ...], ...]:
    """Count rows by observed class, then by the likeliest one; the first of equally likely ones counts.

    Args:
        labels: the places of classes, shape (n_rows,).
        answers: shape (n_rows, n_classes).
    """
    classes = answers.shape[1]
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels.astype(np.int64), np.argmax(answers, axis=1)), 1)
    return tuple(map(tuple, counts.tolist()))


def _classes(
    names: tuple[str, ...],
    statistics: Sequence[Statistic],
    labels: Floats,
    answers: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int,
    weights: Floats | None,
) -> ClassPerformance:
    places, columns = range(len(names)), (labels[:, np.newaxis] == np.arange(len(names))).astype(np.float64)
    likeliest = (np.argmax(answers, axis=1)[:, np.newaxis] == np.arange(len(names))).astype(np.float64)
    pairs = [(i, j) for i in places for j in places]
    shares = Ratios(
        names=tuple(f"share@{i},{j}" for i, j in pairs),
        lacks=tuple(f"a row that was {names[i]}" for i, _ in pairs),
        numerators=np.column_stack([columns[:, i] * likeliest[:, j] for i, j in pairs]),
        denominators=np.column_stack([columns[:, i] for i, _ in pairs]),
        shares=(True,) * len(pairs),
    )
    by_class = Ratios(
        names=(*(f"ppv.{name}" for name in names), *(f"prevalence.{name}" for name in names)),
        lacks=(*(f"a row whose likeliest class is {name}" for name in names), *(SOME for _ in names)),
        numerators=np.column_stack([columns * likeliest, columns]),
        denominators=np.column_stack([likeliest, np.ones(columns.shape)]),
        shares=(True,) * (2 * len(names)),
    )
    measured = measure(
        [
            *statistics,
            *class_statistics(labels, answers),
            _MeanPrecision.of(tuple(f"average_precision.{name}" for name in names), columns, answers),
            _mean_brier(columns, answers, labels_each=1),
            by_class,
            shares,
        ],
        patients,
        rng=rng,
        resamples=resamples,
        weights=weights,
    )
    figures = {name: figure for name, figure in measured.items() if not name.startswith("share@")}
    figures |= {f"sensitivity.{name}": measured[f"share@{i},{i}"] for i, name in enumerate(names)}
    return ClassPerformance(
        names=names,
        rows=len(labels),
        patients=np.unique(patients).size,
        figures=figures,
        confusion=confusion_counts(labels, answers),
        shares=tuple(tuple(measured[f"share@{i},{j}"] for j in places) for i in places),
        calibration={
            name: calibration_curve(
                columns[:, place], answers[:, place], patients, rng=rng, resamples=resamples, weights=weights
            )
            for place, name in enumerate(names)
        },
    )


def _mean_brier(columns: Floats, answers: Floats, *, labels_each: int) -> Ratios:
    """Give the squared distances summed over columns, over so many labels."""
    return Ratios(
        names=("brier_score",),
        lacks=(SOME,),
        numerators=((answers - columns) ** 2).sum(axis=1, keepdims=True) / labels_each,
        denominators=np.ones((len(columns), 1)),
        shares=(False,),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _MeanPrecision:
    """The average precision of each column; under a single name, their mean."""

    names: tuple[str, ...]
    rankings: tuple[Ranking, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], labels: Floats, answers: Floats) -> _MeanPrecision:
        columns = zip(labels.T, answers.T, strict=True)
        return cls(names=names, rankings=tuple(Ranking.of(*checked_rows(*column)) for column in columns))

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say what rows must have."""
        return (A_POSITIVE if len(self.names) > 1 else BOTH_CLASSES,) * len(self.names)

    def measured(self, weights: Floats) -> Floats:
        """Give them under each row of weights; NaN where a column has no positive row."""
        each: Floats = np.column_stack([ranking.measured(weights)[:, 1] for ranking in self.rankings])
        return each if len(self.names) > 1 else each.mean(axis=1, keepdims=True)
