"""Figures of every kind of target, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deployr_core.bootstrap import Statistic
from deployr_core.outputs import Outputs, Target
from deployr_core.target_figures import headline_statistics


def outputs(target: Target, *names: str) -> Outputs:
    unit = "g/dL" if target is Target.REGRESSION else None
    return Outputs(target=target, names=names, headline=names[0], unit=unit)


def figures_of(statistics: list[Statistic], n_rows: int) -> dict[str, float]:
    """Measure without resampling."""
    weights = np.ones((1, n_rows))
    return {
        name: float(value)
        for statistic in statistics
        for name, value in zip(statistic.names, statistic.measured(weights)[0], strict=True)
    }


def test_the_figures_of_a_number_are_what_their_names_say():
    of = outputs(Target.REGRESSION, "value")
    statistics = headline_statistics(of, np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [5.0]]))

    assert figures_of(statistics, 3) == pytest.approx(
        {"mae": 2 / 3, "rmse": (4 / 3) ** 0.5, "bias": 2 / 3, "r2": 1 - 4 / 2}
    )


def test_numbers_that_are_all_the_same_have_no_r2():
    of = outputs(Target.REGRESSION, "value")
    figures = figures_of(headline_statistics(of, np.full(3, 0.1), np.zeros((3, 1))), 3)

    assert np.isnan(figures["r2"])
    assert figures["mae"] == pytest.approx(0.1)


def test_figures_refuse_rows_of_another_shape():
    of = outputs(Target.MULTICLASS, "low", "normal", "high")
    for labels, answers in ((np.zeros(2), np.zeros((2, 2))), (np.zeros(0), np.zeros((0, 3)))):
        with pytest.raises(ValueError, match="one number for each output"):
            headline_statistics(of, labels, answers)
