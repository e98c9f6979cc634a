"""From labels and outputs to a `PlainEvaluation`: what a report of several classes, labels or of numbers shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deployr_core.bootstrap import RESAMPLES, Floats, measure
from deployr_core.groups import Strings, in_order, named_rows, too_small
from deployr_core.monitoring.more_outcomes import confusion_counts
from deployr_core.monitoring.number_errors import error_bin_count, error_bins
from deployr_core.outputs import Outputs, Target
from deployr_core.target_figures import class_statistics, headline_statistics, label_means, one_column_each
from deployr_dev.evaluation.measuring import evaluate, roc_points
from deployr_dev.evaluation.plain_records import (
    ClassDetail,
    LabelDetail,
    NumberBin,
    NumberDetail,
    PlainEvaluation,
    PlainGroup,
    PlainGrouping,
)
from deployr_dev.evaluation.records import Figure, TooSmall, recorded


def evaluate_plain(
    outputs: Outputs,
    labels: Floats,
    answers: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    subgroups: Mapping[str, Strings],
    available_features: NDArray[np.int64],
    resamples: int = RESAMPLES,
) -> PlainEvaluation:
    """Measure outputs against outcomes, for all rows and for groups of them.

    Args:
        outputs: what is predicted; not ``binary``, which `deployr_dev.evaluation.measuring.evaluate` measures.
        labels: as `Target` has them, shape (n_rows,) or (n_rows, n_labels).
        answers: what the model gave, shape (n_rows, n_outputs).
        patients: which patient each row belongs to, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same evaluation.
        subgroups: by property, the name of each row's group, shape (n_rows,); an empty name is not recorded.
        available_features: how many features were not absent in each row, shape (n_rows,).
        resamples: of each interval.

    Raises:
        ValueError: no rows, or an argument that cannot be.
    """
    statistics = headline_statistics(outputs, labels, answers)
    if outputs.target is Target.MULTICLASS:
        statistics += class_statistics(labels, answers)
    main = "mae" if outputs.target is Target.REGRESSION else "auroc"
    named = {name: named_rows(name, names, patients.shape) for name, names in subgroups.items()}

    def group(name: str, within: NDArray[np.bool_]) -> PlainGroup:
        held = np.unique(patients[within]).size
        figure: Figure | TooSmall
        small = too_small(patients[within])
        if small is not None:
            figure = TooSmall(why=small)
        else:
            own = headline_statistics(outputs, labels[within], answers[within])
            figure = recorded(measure(own, patients[within], rng=rng, resamples=resamples)[main])
        return PlainGroup(name=name, rows=int(within.sum()), patients=held, figure=figure)

    # As in `evaluate`: threads that wait for each other on a busy machine took ten times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        measured = measure(statistics, patients, rng=rng, resamples=resamples)
        groupings = tuple(
            PlainGrouping(name=name, groups=tuple(group(each, names == each) for each in in_order(names)))
            for name, names in named.items()
        )
        detail: ClassDetail | LabelDetail | NumberDetail
        match outputs.target:
            case Target.MULTICLASS:
                detail = _classes(outputs, labels, answers)
            case Target.REGRESSION:
                detail = _numbers(labels, answers[:, 0], patients, rng=rng, resamples=resamples)
            case _:
                detail = LabelDetail(
                    by_label={
                        name: evaluate(
                            labels[:, place],
                            answers[:, place],
                            patients,
                            rng=rng,
                            subgroups=subgroups,
                            available_features=available_features,
                            resamples=resamples,
                        )
                        for place, name in enumerate(outputs.names)
                    }
                )
    return PlainEvaluation(
        rows=len(labels),
        patients=np.unique(patients).size,
        resamples=resamples,
        label_means=label_means(outputs, labels),
        figures={name: recorded(figure) for name, figure in measured.items()},
        grouped_by=main,
        groupings=groupings,
        detail=detail,
    )


def _classes(outputs: Outputs, labels: Floats, answers: Floats) -> ClassDetail:
    columns = one_column_each(outputs, labels)
    return ClassDetail(
        confusion=confusion_counts(labels, answers),
        roc={name: roc_points(columns[:, place], answers[:, place]) for place, name in enumerate(outputs.names)},
    )


def _numbers(
    observed: Floats, predicted: Floats, patients: NDArray[np.int64], *, rng: np.random.Generator, resamples: int
) -> NumberDetail:
    wanted = error_bin_count(observed.size)

    def bins(by: Floats, count: int) -> tuple[NumberBin, ...]:
        found = error_bins(by, observed, predicted, patients, bins=count, rng=rng, resamples=resamples)
        return tuple(
            NumberBin(
                lowest=each.lowest,
                highest=each.highest,
                rows=each.rows,
                predicted=recorded(each.predicted),
                observed=recorded(each.observed),
                error=recorded(each.error),
            )
            for each in found
        )

    return NumberDetail(by_predicted=bins(predicted, wanted), by_observed=bins(observed, min(5, wanted)))
