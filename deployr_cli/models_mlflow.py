"""`deployr models to-mlflow` and `from-mlflow`: runs of our registry in an MLflow registry, and back from one.

Our journal stays what decides. MLflow gets a copy that says how the run stands; what comes from there is fetched,
checked against the site's own keys, and is a challenger like any other.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployr_cli.failures import CommandFailed
from deployr_cli.mlflow_registry import BUNDLE_TAG, PLACE, RUN_TAG, MlflowRegistry, Version

if TYPE_CHECKING:
    from deployr_cli.models_site import RegistrySite
    from deployr_core.registry.run import Run
    from deployr_core.registry.standing import Standing
    from deployr_serve.core.registry_deeds import ShelvedRun

CHAMPION, CHALLENGER = "champion", "challenger"
STANDING_TAG = "deployr.standing"
SIGNER_TAG = "deployr.signed_by"
_MODEL_FILE = "MLmodel"
_LARGEST = 20_000_000
"""In bytes, of a record; no honest one is larger. Of a bundle's files its signed manifest says the sizes."""

Tracking = Annotated[
    str | None, typer.Option("--tracking", help="MLflow's URI; default: MLFLOW_TRACKING_URI. No password in it.")
]
_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_By = Annotated[
    str | None,
    typer.Option(help="Who does it, where the site lists nobody (dev profile); else who is logged in counts."),
]


def to_mlflow_command(
    model: Annotated[str, typer.Argument(help="The model's id, such as hematocrit.")],
    run: Annotated[
        str | None, typer.Argument(help="A registered run; default: none, only the standings are brought up to date.")
    ] = None,
    tracking: Tracking = None,
    name: Annotated[str | None, typer.Option(help="The registered model there; default: the model's id.")] = None,
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Make a registered run a model version in MLflow: bundle, report and figures, no row of a patient's.

    Its tags say digest, signer and how it stands; the aliases champion and challenger follow our journal. Said again,
    it changes nothing but what changed here.
    """
    from deployr_cli.models_site import RegistrySite

    site = RegistrySite(settings)
    for line in to_mlflow(site, MlflowRegistry(tracking), model, run, name=name or model, by=by):
        typer.echo(line)


def from_mlflow_command(
    version: Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS")],
    tracking: Tracking = None,
    why: Annotated[str, typer.Option(help="In your own words; kept on record.")] = "",
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Lay a version that is a bundle of deployr's onto the shelf, and make it a challenger; it deploys nothing.

    It must be signed by a key of DEPLOYR_TRUSTED_KEYS, whatever MLflow says of it. A model of another flavor is not
    loaded, because loading it runs code. Takes the role developer.
    """
    from deployr_cli.models_site import RegistrySite

    for line in from_mlflow(RegistrySite(settings), MlflowRegistry(tracking), version, why=why, by=by):
        typer.echo(line)


def to_mlflow(
    site: RegistrySite, registry: MlflowRegistry, model: str, run: str | None, *, name: str, by: str | None = None
) -> tuple[str, ...]:
    """Publish a run, bring tags and aliases up to date, and say what was changed.

    Raises:
        CommandFailed: the run is not registered, or MLflow does not take it.
        RegistryRefused: it does not lie on the shelf as it was registered.
    """
    standing = _standing(site, model)
    told = []
    if run is not None:
        shelved = _registered(site, standing, run)
        there = [each for each in registry.versions(name) if _is_of(each, shelved.run)]
        if there:
            told.append(f"{there[0].uri}: is {run} already")
        else:
            version = _publish(site, registry, shelved, name=name, stage=standing.runs[run].stage)
            _write_down(site, version, shelved.run, by=by)
            told.append(f"{version.uri}: is {run} now, at {registry.shown}")
    told += _mirrored(registry, name, standing)
    return tuple(told) or (f"{name}: everything there is as the journal says",)


def from_mlflow(
    site: RegistrySite, registry: MlflowRegistry, uri: str, *, why: str = "", by: str | None = None
) -> tuple[str, ...]:
    """Fetch a version, check it, and register it; say what was done.

    Raises:
        CommandFailed: it is no bundle of ours, was changed, or is not signed by a key of the site.
        RegistryRefused: this person may not, or another run lies under its name.
    """
    from deployr_core.registry.journal import Action

    version = registry.version(uri)
    with tempfile.TemporaryDirectory(prefix="deployr-mlflow-") as scratch:
        folder = Path(scratch, "run")
        run = fetched_run(site, registry, version, folder)
        known = _standing(site, run.model_id).runs.get(run.run_id)
        if site.may(Action.REGISTERED, run.model_id, by=by):
            site.shelf.take(folder)
    if known is not None:
        return (f"{run.run_id}: registered already, and {known.stage} now; nothing was changed",)
    done = site.do(
        Action.REGISTERED, model=run.model_id, run=run.run_id, why=why or f"from MLflow, {version.uri}", by=by
    )
    from deployr_cli.models_words import done_lines

    return tuple(done_lines(done))


def fetched_run(site: RegistrySite, registry: MlflowRegistry, version: Version, folder: Path) -> Run:
    """Fetch a version into a folder, as a run's, and give its record; every digest and the signature are checked.

    What MLflow says of it counts for nothing: the site's keys must have signed the manifest, whose digests hold all
    other files of the bundle, and the record's id must follow from what it says.

    Raises:
        CommandFailed: it is not such a version; nothing of it was deserialised.
    """
    from deployr_core.bundle import BUNDLE_FILES, MANIFEST_FILE, BundleInvalid
    from deployr_core.registry.run import (
        BUNDLE_FOLDER,
        CONFIG_FILE,
        FIGURES_FILE,
        REPORT_FILE,
        RUN_FILE,
        RUN_SIGNATURE_FILE,
    )
    from deployr_core.signing import SIGNATURE_FILE, trusted_key
    from deployr_serve.adapters.bundle_files import read_files
    from deployr_serve.adapters.run_shelf import read_run

    keys = tuple(trusted_key(file.read_bytes()) for file in site.settings.trusted_keys)
    if not keys:
        raise CommandFailed("DEPLOYR_TRUSTED_KEYS: expected the keys whose signature this site trusts")
    files, of_bundle = registry.files(version), registry.files(version, BUNDLE_FOLDER)
    if RUN_FILE not in files or MANIFEST_FILE not in of_bundle:
        raise CommandFailed(_not_ours(registry, version, files, folder))
    (folder / BUNDLE_FOLDER).mkdir(parents=True)
    for name in (RUN_FILE, RUN_SIGNATURE_FILE, CONFIG_FILE, REPORT_FILE, FIGURES_FILE):
        if name in files:
            _fetch(registry, version, name, files[name], folder / name)
    try:
        for name in (SIGNATURE_FILE, *BUNDLE_FILES):
            if name in of_bundle:
                limit = _LARGEST if name in {SIGNATURE_FILE, MANIFEST_FILE} else None
                file = f"{BUNDLE_FOLDER}/{name}"
                _fetch(registry, version, file, of_bundle[name], folder / file, limit=limit)
        found = read_files(folder / BUNDLE_FOLDER, trusted_keys=keys)
    except BundleInvalid as error:
        raise CommandFailed(f"{version.uri}: {error}; nothing was taken") from None
    run = read_run(folder)
    if run.bundle_sha256 != found.digest:
        raise CommandFailed(f"{version.uri}: expected the bundle that its {RUN_FILE} names; nothing was taken")
    if version.tags.get(BUNDLE_TAG, found.digest) != found.digest:
        raise CommandFailed(f"{version.uri}: expected the bundle that its tag {BUNDLE_TAG} names; nothing was taken")
    return run


def _fetch(
    registry: MlflowRegistry, version: Version, name: str, size: int | None, to: Path, *, limit: int | None = _LARGEST
) -> None:
    if limit is not None and (size or 0) > limit:
        raise CommandFailed(f"{version.uri}/{name}: expected at most {limit} bytes; nothing was taken")
    registry.fetch(version, name, to)
    if size is not None and to.stat().st_size != size:
        raise CommandFailed(f"{version.uri}/{name}: expected {size} bytes, got {to.stat().st_size}; nothing was taken")


def _not_ours(registry: MlflowRegistry, version: Version, files: Mapping[str, int | None], folder: Path) -> str:
    """Say what a version is in place of a bundle of ours, and what can be done with it."""
    head = f"{version.uri}: expected a run of deployr's with its bundle"
    if _MODEL_FILE not in files:
        return f"{head}, got other files; `deployr models to-mlflow` writes such versions"
    import yaml

    folder.mkdir()
    _fetch(registry, version, _MODEL_FILE, files[_MODEL_FILE], folder / _MODEL_FILE)
    try:
        said = yaml.safe_load((folder / _MODEL_FILE).read_bytes())
        flavors = ", ".join(sorted(str(each)[:30] for each in said["flavors"]))
    except (yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError):
        flavors = "unknown"
    return (
        f"{head}, got a model of the flavors {flavors}: loading it would run code, so nothing was loaded. Train it with"
        " `deployr run`, or let an MLflow server answer for it and serve it as a model of the kind http"
        " (docs/model-kinds.md)"
    )


def _standing(site: RegistrySite, model: str) -> Standing:
    return site.in_store(lambda store: site.journal(store, model)).standing


def _registered(site: RegistrySite, standing: Standing, run: str) -> ShelvedRun:
    from deployr_core.registry.roles import Reason, RegistryRefused

    known = standing.runs.get(run)
    if known is None:
        raise CommandFailed(f"{run}: expected a registered run of {standing.model_id}; see `deployr models register`")
    shelved = site.shelved(standing.model_id, run)
    if (shelved.run_sha256, shelved.run.bundle_sha256) != (known.run_sha256, known.bundle_sha256):
        raise RegistryRefused(Reason.NOT_AS_REGISTERED, f"{run}: expected run and bundle as they were registered")
    return shelved


def _is_of(version: Version, run: Run) -> bool:
    return version.tags.get(RUN_TAG) == run.run_id and version.tags.get(BUNDLE_TAG) == run.bundle_sha256


def _publish(site: RegistrySite, registry: MlflowRegistry, shelved: ShelvedRun, *, name: str, stage: str) -> Version:
    run = shelved.run
    lies_at = site.settings.bundle_archive
    if lies_at is None:
        raise CommandFailed("DEPLOYR_BUNDLE_ARCHIVE: expected the folder that runs are kept in")
    with tempfile.TemporaryDirectory(prefix="deployr-mlflow-") as scratch:
        folder = Path(scratch, PLACE)
        _lay_out(lies_at / run.model_id / run.run_id, folder)
        return registry.publish(
            name,
            folder,
            at=run.opened_at,
            by=run.trained_by,
            tags={
                RUN_TAG: run.run_id,
                BUNDLE_TAG: run.bundle_sha256,
                "deployr.run_sha256": shelved.run_sha256,
                "deployr.model_id": run.model_id,
                "deployr.deploy_type": run.deploy_type,
                SIGNER_TAG: shelved.signed_by or "",
            },
            version_tags={STANDING_TAG: stage},
            metrics=figures_of(run),
            said=f"{shelved.manifest.task.label} Serve it with deployr: it is no MLflow flavor.",
        )


def _lay_out(run: Path, folder: Path) -> None:
    """Lay out what of a run may leave the hospital: what lies on the shelf by name, and nothing that lies beside it."""
    from deployr_core.bundle import BUNDLE_FILES
    from deployr_core.registry.run import (
        BUNDLE_FOLDER,
        COMPARISON_FILE,
        CONFIG_FILE,
        FIGURES_FILE,
        REPORT_FILE,
        RUN_FILE,
        RUN_SIGNATURE_FILE,
    )
    from deployr_core.signing import SIGNATURE_FILE

    (folder / BUNDLE_FOLDER).mkdir(parents=True)
    of_bundle = [f"{BUNDLE_FOLDER}/{name}" for name in (*BUNDLE_FILES, SIGNATURE_FILE)]
    of_run = (RUN_FILE, RUN_SIGNATURE_FILE, CONFIG_FILE, REPORT_FILE, FIGURES_FILE, COMPARISON_FILE)
    for name in (*of_run, *of_bundle):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)


def figures_of(run: Run) -> dict[str, float]:
    """Give what a run is logged with: its held-out figures with their 95 % intervals, and how much there was of it."""
    figures = {
        f"test.{name}{end}": value
        for name, estimate in run.test.items()
        for end, value in (("", estimate.value), (".low", estimate.low), (".high", estimate.high))
        if math.isfinite(value)
    }
    for name, rows in (("train", run.sets.train), ("test", run.sets.test)):
        figures |= {f"{name}.rows": float(rows.rows), f"{name}.patients": float(rows.patients)}
    return figures


def _mirrored(registry: MlflowRegistry, name: str, standing: Standing) -> list[str]:
    """Let tags and aliases there say what the journal says, and tell what was changed."""
    versions = registry.versions(name)
    told = []
    numbers: dict[str, str] = {}
    for version in versions:
        run = standing.runs.get(version.tags[RUN_TAG])
        if run is None or version.tags.get(BUNDLE_TAG) != run.bundle_sha256:
            continue
        numbers[run.run_id] = version.number
        if registry.mark(version, {STANDING_TAG: run.stage}):
            told.append(f"{version.uri}: is {run.stage}")
    if not numbers:
        return told
    waiting = [run for run, stands in standing.runs.items() if stands.stage in _WAITS and run in numbers]
    wanted = {
        CHAMPION: numbers.get(standing.champion or ""),
        CHALLENGER: numbers[waiting[-1]] if waiting else None,
    }
    for alias, number in wanted.items():
        # An alias that names somebody else's version is theirs to move.
        is_ours = registry.alias(name, alias) in {None, *numbers.values()}
        if is_ours and registry.point(name, alias, number):
            told.append(f"models:/{name}@{alias}: {'names no version' if number is None else f'is version {number}'}")
    return told


_WAITS = frozenset({"challenger", "approved"})


def _write_down(site: RegistrySite, version: Version, run: Run, *, by: str | None) -> None:
    from deployr_cli.audited import who, write_down
    from deployr_cli.models_site import login_name
    from deployr_serve.core.audit import Act

    write_down(
        site.settings,
        Act.REGISTRY,
        by=login_name() if by is None else who(by),
        said="published",
        model_id=run.model_id,
        details={"run": run.run_id, "version": version.uri},
    )
