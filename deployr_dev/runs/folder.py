"""A run's folder: written whole or not at all, never changed, and checked against its own record."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, Bundle, BundleInvalid, sha256_hex
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.registry.run import (
    BUNDLE_FOLDER,
    CONFIG_FILE,
    RUN_FILE,
    SNAPSHOT_FOLDER,
    Run,
    RunInvalid,
    differences,
    parse_run,
)
from deployr_dev.bundles import read_bundle, read_files, write_bundle
from deployr_dev.evaluation.report import write_report
from deployr_dev.matrix import FeatureEngine
from deployr_dev.runs.config import ConfigInvalid, ResolvedConfig, load_config, resolved
from deployr_dev.runs.making import MadeRun
from deployr_dev.runs.snapshot import Snapshot, SnapshotInvalid, read_snapshot, write_snapshot
from deployr_dev.training import TrainingSource, training_sets


class FolderInvalid(ValueError):
    """The folder is no run's, or not what its record says; the message names the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """A run as it lies in its folder."""

    path: Path
    run: Run
    config: ResolvedConfig = field(repr=False)
    spec: FeatureSpec = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read a run's record, config and declaration.

        Raises:
            FolderInvalid: one of them is missing or not what the record says.
        """
        run = _record(path)
        try:
            config = resolved(load_config(path / CONFIG_FILE), folder=path)
            files = read_files(path / BUNDLE_FOLDER)
        except (ConfigInvalid, BundleInvalid) as error:
            raise FolderInvalid(str(error)) from None
        return cls(path=path, run=run, config=config, spec=parse_feature_spec(files.parts[FEATURES_FILE]))

    def bundle(self) -> Bundle:
        """Give the bundle, loaded and verified.

        Raises:
            FolderInvalid: it is not the one that the record names, or cannot be opened.
        """
        try:
            bundle = read_bundle(self.path / BUNDLE_FOLDER, allow_pickle=self.config.config.allow_pickle)
        except BundleInvalid as error:
            raise FolderInvalid(f"{self.path}: {error}") from None
        if bundle.digest != self.run.bundle_sha256:
            raise FolderInvalid(f"{self.path / BUNDLE_FOLDER}: expected the bundle that {RUN_FILE} names, got another")
        return bundle

    def snapshot(self) -> Snapshot:
        """Give the rows and features that were kept, after their digests were found right.

        Raises:
            FolderInvalid: none were kept, or they are not those of the record.
        """
        if not self.run.has_snapshot:
            raise FolderInvalid(f"{self.path}: expected a run whose snapshot was kept; it was made without")
        try:
            found = read_snapshot(self.path / SNAPSHOT_FOLDER, self.spec)
        except SnapshotInvalid as error:
            raise FolderInvalid(str(error)) from None
        if told := _set_problems(self.run, found, self.config):
            raise FolderInvalid(f"{self.path / SNAPSHOT_FOLDER}: {'; '.join(told)}")
        return found


def write_run(made: MadeRun, out: Path) -> Path:
    """Write a run into a folder of its own under ``out``, called by its id, and give that folder.

    The folder appears whole or not at all. The same run, made again, leaves the one that is there as it is: only when
    it was opened, and why, could be another.

    Raises:
        FolderInvalid: something else is there under its name.
        BundleInvalid: what was written cannot be opened, or does not give its golden scores.
    """
    folder = out / made.run.run_id
    if folder.exists():
        if _record(folder).run_id != made.run.run_id:
            raise FolderInvalid(f"{folder}: expected a folder that is not there yet, or this run's")
        return folder
    out.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{made.run.run_id}-", dir=out))
    try:
        fresh = beside / "fresh"
        fresh.mkdir()
        allow_pickle = made.config.config.allow_pickle
        write_bundle(made.trained, fresh / BUNDLE_FOLDER, allow_pickle=allow_pickle)
        manifest = made.trained.manifest
        write_report(fresh, manifest=manifest, evaluation=made.evaluation, spec=made.trained.spec)
        if made.snapshot is not None:
            write_snapshot(made.snapshot, fresh / SNAPSHOT_FOLDER)
        for name, content in ((CONFIG_FILE, made.config.to_yaml()), (RUN_FILE, made.run.to_json())):
            with (fresh / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        fresh.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def verify(path: Path) -> tuple[str, ...]:
    """Compute every digest of a run's folder again, and say what is not as its record says; empty if all is.

    Raises:
        FolderInvalid: there is no record that could be checked against.
    """
    run = _record(path)
    told: list[str] = []
    config = spec = None
    try:
        config = resolved(load_config(path / CONFIG_FILE), folder=path)
        if config.sha256 != run.config_sha256:
            told.append(f"{CONFIG_FILE}: expected {run.config_sha256[:12]}…, got {config.sha256[:12]}…")
    except ConfigInvalid as error:
        told.append(str(error))
    try:
        files = read_files(path / BUNDLE_FOLDER)
        spec = parse_feature_spec(files.parts[FEATURES_FILE])
        if (digest := sha256_hex(files.manifest_json)) != run.bundle_sha256:
            name = f"{BUNDLE_FOLDER}/{MANIFEST_FILE}"
            told.append(f"{name}: expected {run.bundle_sha256[:12]}…, got {digest[:12]}…")
    except BundleInvalid as error:
        told.append(f"{BUNDLE_FOLDER}: {error}")
    if run.has_snapshot and config is not None and spec is not None:
        try:
            told += _set_problems(run, read_snapshot(path / SNAPSHOT_FOLDER, spec), config)
        except SnapshotInvalid as error:
            told.append(str(error))
    return tuple(told)


def verify_against(
    folder: RunFolder, extract: TrainingSource, *, engine: FeatureEngine | None = None
) -> tuple[str, ...]:
    """Make a run's sets again from an extract, and say in what they are others; empty if they are the same.

    Args:
        folder: the run's.
        extract: what it was trained on, or says that it is.
        engine: computes the features; None takes the reference engine.

    Raises:
        TrainingImpossible, NotInExtract: the extract cannot carry the run at all.
    """
    config = folder.config
    sets = training_sets(extract, config.task, config.declaration, options=config.options, engine=engine)
    return _set_problems(folder.run, Snapshot.of(sets), config)


def _record(path: Path) -> Run:
    try:
        return parse_run((path / RUN_FILE).read_bytes())
    except OSError as error:
        raise FolderInvalid(
            f"{path / RUN_FILE}: expected a run's record, but it cannot be read ({error.strerror})"
        ) from None
    except RunInvalid as error:
        raise FolderInvalid(f"{path}: {error}") from None


def _set_problems(run: Run, found: Snapshot, config: ResolvedConfig) -> tuple[str, ...]:
    return differences(run.sets, found.described(config))
