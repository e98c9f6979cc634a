"""From a config and an extract to a run, all in memory; `deployr_dev.runs.folder` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from deployr_core.bundle import sha256_hex
from deployr_core.outputs import Target
from deployr_core.registry.run import Because, Run, Sets, derive_run_id
from deployr_dev.code_version import code_version
from deployr_dev.evaluation.held_out import PeopleSource, evaluate_held_out
from deployr_dev.evaluation.plain_records import PlainEvaluation
from deployr_dev.evaluation.records import Evaluation
from deployr_dev.folds import TrainingImpossible
from deployr_dev.matrix import FeatureEngine, Progress
from deployr_dev.runs.config import ResolvedConfig
from deployr_dev.runs.snapshot import Snapshot
from deployr_dev.trained import TrainedBundle
from deployr_dev.training import TrainingSource, train_on, training_sets


class RunSource(TrainingSource, PeopleSource, Protocol):
    """What a run needs of an extract; `deployr_dev.sources` has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How a run came to be: what its id does not depend on. ``source``: as it may be shown."""

    at: datetime
    by: str
    source: str
    because: Because = Because.BY_HAND
    asked_for: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeRun:
    """A run with all that goes into its folder."""

    run: Run
    config: ResolvedConfig
    trained: TrainedBundle
    snapshot: Snapshot | None
    evaluation: Evaluation | PlainEvaluation


def make_run(
    extract: RunSource,
    config: ResolvedConfig,
    opening: Opening,
    *,
    engine: FeatureEngine | None = None,
    keep_snapshot: bool = True,
    progress: Progress | None = None,
) -> MadeRun:
    """Train what the config says on what the extract has.

    Args:
        extract: where rows, labels and patients come from.
        config: what is made.
        opening: when, by whom and why.
        engine: computes the features; None takes the reference engine.
        keep_snapshot: whether rows and features are kept; their digests are in any case.
        progress: told how many patients were read, of both passes over them.

    Raises:
        TrainingImpossible: the data cannot support the model, or are less than the config's evidence.
        Others: as for `deployr_dev.training.train_bundle`.
    """
    options = config.options
    sets = training_sets(extract, config.task, config.declaration, options=options, engine=engine, progress=progress)
    snapshot = Snapshot.of(sets)
    described = snapshot.described(config)
    expect_evidence(config, described)
    trained = train_on(sets, config.task, options)
    bundle_sha256 = sha256_hex(trained.manifest.to_json())
    run = Run(
        run_id=derive_run_id(
            trained.manifest.model_id,
            config_sha256=config.sha256,
            sets=described,
            code_version=code_version(),
            bundle_sha256=bundle_sha256,
        ),
        model_id=trained.manifest.model_id,
        config_sha256=config.sha256,
        opened_at=opening.at,
        opened_because=opening.because,
        opened_for=opening.asked_for,
        trained_by=opening.by,
        source=opening.source,
        code_version=code_version(),
        sets=described,
        bundle_sha256=bundle_sha256,
        deploy_type=config.config.deploy,
        test=trained.manifest.evaluation.figures,
        has_snapshot=keep_snapshot,
    )
    return MadeRun(
        run=run,
        config=config,
        trained=trained,
        snapshot=snapshot if keep_snapshot else None,
        evaluation=evaluate_held_out(trained, extract, seed=options.seed),
    )


def expect_evidence(config: ResolvedConfig, sets: Sets) -> None:
    """Refuse to train where too little would be held out to say anything.

    Raises:
        TrainingImpossible: fewer patients or positives than the config's evidence asks for.
    """
    wanted, found = config.config.evidence, sets.test
    asked: Mapping[str, tuple[int, int]] = {"patients": (wanted.patients, found.patients)}
    if config.task.outputs.target is Target.BINARY:
        asked = {**asked, "positives": (wanted.positives, found.positives or 0)}
    short = [
        f"{name}: expected at least {least}, got {count}" for name, (least, count) in asked.items() if count < least
    ]
    if short:
        raise TrainingImpossible(f"evidence: of the held-out rows, {'; '.join(short)}; nothing was trained")
