"""Training, evaluating and bundling one large task: how much of the time is not scikit-learn's own fit."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import sklearn.ensemble

from benchmarks.measured import Measured
from deployr_cli.demo.run import TASK
from deployr_core.features import CodeGroup, FeatureSpec, ResultGroup
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.estimators import EstimatorChoice, EstimatorName
from deployr_dev.evaluation.held_out import evaluate_held_out
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_dev.training import TrainingOptions, train_bundle
from mock_emr.population.config import PopulationConfig
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop

_MOST_SHARE = 1 / 3


def training_share() -> list[Measured]:
    """Measure about 14,000 orders, 100 trees and, with bins cut finely, about 5,000 features."""
    spent = [0.0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_omop(generate(PopulationConfig(patients=1_650, weeks=26)), folder / "omop")
        task, declaration = shipped_task(TASK), _finer(shipped_declaration(TASK))
        options = TrainingOptions(
            estimator=EstimatorChoice(name=EstimatorName.RANDOM_FOREST, parameters={"n_estimators": 100})
        )
        original = sklearn.ensemble.RandomForestClassifier.fit
        sklearn.ensemble.RandomForestClassifier.fit = _timed(original, spent)
        try:
            with Extract.open(folder / "omop") as extract:
                started = time.perf_counter()
                trained = train_bundle(extract, task, declaration, options=options, engine=SetEngine(extract))
                evaluate_held_out(trained, extract, seed=0)
                write_bundle(trained, folder / "bundle")
                seconds = time.perf_counter() - started
        finally:
            sklearn.ensemble.RandomForestClassifier.fit = original
    manifest = trained.manifest
    rows = manifest.training.rows + manifest.evaluation.rows
    share = (seconds - spent[0]) / seconds
    return [
        Measured(
            name=f"training {rows:,} orders with {manifest.n_features:,} features to a bundle: share not in fit",
            value=round(share, 3),
            unit="",
            baseline=round(spent[0] / seconds, 3),
            ratio=round(share / (spent[0] / seconds), 3),
            goal=f"value <= {_MOST_SHARE:.2f}",
            met=share <= _MOST_SHARE,
        )
    ]


def _timed(fit: Any, spent: list[float]) -> Any:
    def timed_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return fit(self, *args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - started

    return timed_fit


def _finer(spec: FeatureSpec) -> FeatureSpec:
    """Cut every test into many bins and take every code: about 5,000 features."""
    import msgspec

    from deployr_core.declared import LearnedCodes, QuantileBins

    def finer(group: Any) -> Any:
        if isinstance(group, ResultGroup):
            bins = QuantileBins(n=100)
            return msgspec.structs.replace(
                group, analytes=tuple(msgspec.structs.replace(analyte, bins=bins) for analyte in group.analytes)
            )
        if isinstance(group, CodeGroup):
            return msgspec.structs.replace(group, codes=LearnedCodes(min_patients=1))
        return group

    return msgspec.structs.replace(spec, groups=tuple(finer(group) for group in spec.groups))


if __name__ == "__main__":
    print(training_share())
