"""A training run: one model config, trained once, as a record that anybody can check.

``run.json`` lies in the run's folder beside ``bundle/``, ``config.yaml``, ``report.html`` and, once the run was held
against a champion, ``comparison.json``. It says what went in and what came out, by digest, count and day: no row, no
id and no instant of a patient's. Its id follows from its contents, so that the same config, data and code have the same
id wherever they are trained, and a record that was changed no longer has its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum

import msgspec

from deployr_core.bundle import MODEL_ID, CodeVersion, Estimate

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
RUN_SIGNATURE_FILE = "run.sig"
"""Who vouches for the record; it names the bundle, so that whoever signs it has seen both."""
CONFIG_FILE = "config.yaml"
BUNDLE_FOLDER = "bundle"
REPORT_FILE = "report.html"
FIGURES_FILE = "report.json"
"""The figures of the report, which papers and curves in service are made from."""
COMPARISON_FILE = "comparison.json"
SNAPSHOT_FOLDER = "snapshot"
"""Rows and features as they were: patients' data, for their owner alone. It may be left out; `Run` tells."""

_LONGEST_MODEL_PART = 51
"""So that an id is a name that a model may have, which is at most 64 characters long."""
_DIGITS = 12


class RunInvalid(ValueError):
    """The record is not what a run's must be; the message names the place."""


class DeployType(StrEnum):
    """What becomes of a champion: ``cloud`` serves it from the function app, ``edge`` exports it for elsewhere."""

    CLOUD = "cloud"
    EDGE = "edge"


class Because(StrEnum):
    """Why a run was opened. None of them deploys anything."""

    BY_HAND = "by hand"
    SCHEDULE = "schedule"
    DRIFT_ALARM = "drift alarm"


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DataSet(_Record, frozen=True, kw_only=True):
    """Rows as they were at the run, in figures.

    ``positives``: rows with the outcome; None where the target is not one outcome. ``rows_sha256``: over who, what and
    when each row is and its label, in whichever order they come; ``features_sha256``: over the same with the features.
    ``first`` and ``last``: the days of the first and the last index time, in UTC; an instant would be a patient's.
    ``folds``: in how many the rows were cut by patient, each validated by a model that had not seen it; None where the
    set is one piece.
    """

    rows: int
    patients: int
    positives: int | None
    rows_sha256: str
    features_sha256: str
    first: date
    last: date
    folds: int | None = None


class Sets(_Record, frozen=True, kw_only=True):
    """What a run was trained, validated and tested on.

    ``validation``: where settings were searched or probabilities corrected: the training rows, in folds; None where
    nothing was chosen. ``test``: held out; nothing was chosen on it.
    """

    train: DataSet
    validation: DataSet | None
    test: DataSet


class Run(_Record, frozen=True, kw_only=True):
    """One training run.

    ``opened_at``: UTC. ``opened_for``: which journal entry asked for it; None if nobody had. ``trained_by``: who ran
    it. ``source``: as it may be shown. ``test``: the held-out figures with their 95 % intervals, by the manifest's
    names. ``has_snapshot``: rows and features were kept in the folder.

    Raises:
        ValueError: an id that does not follow from the contents, or an instant that is not UTC.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    model_id: str
    config_sha256: str
    opened_at: datetime
    opened_because: Because = Because.BY_HAND
    opened_for: str | None = None
    trained_by: str
    source: str
    code_version: CodeVersion
    sets: Sets
    bundle_sha256: str
    deploy_type: DeployType
    test: Mapping[str, Estimate]
    has_snapshot: bool

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not MODEL_ID.match(self.model_id):
            raise ValueError("expected a model_id of lower-case letters, digits and hyphens")
        if self.opened_at.tzinfo is not UTC:
            raise ValueError("expected opened_at in UTC")
        expected = derive_run_id(
            self.model_id,
            config_sha256=self.config_sha256,
            sets=self.sets,
            code_version=self.code_version,
            bundle_sha256=self.bundle_sha256,
        )
        if self.run_id != expected:
            raise ValueError(f"expected the run_id that follows from the contents, {expected}")

    def to_json(self) -> bytes:
        """Give the record's canonical bytes, with a line for each field, for people to read."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"


def derive_run_id(
    model_id: str, *, config_sha256: str, sets: Sets, code_version: CodeVersion, bundle_sha256: str
) -> str:
    """Give the id of a run: the model's and 12 hex digits over config, data, code and what came out.

    When it was opened, why and by whom is no part of it: the same work done again is the same run.
    """
    content = (model_id, config_sha256, sets, code_version, bundle_sha256)
    digest = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    return f"{model_id[:_LONGEST_MODEL_PART]}-{digest[:_DIGITS]}"


def parse_run(source: bytes) -> Run:
    """Read ``run.json``.

    Raises:
        RunInvalid: not JSON, not what a run must hold, or an id that does not follow from what it holds.
    """
    try:
        return msgspec.json.decode(source, type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunInvalid(f"{RUN_FILE}: {error}") from None


def digest_of_rows(rows: Iterable[bytes]) -> str:
    """Give the SHA-256 over rows, in whichever order they come, in hex; one that is there twice counts twice.

    Args:
        rows: each as bytes that say all of it, the same on every machine.
    """
    digest = hashlib.sha256()
    for each in sorted(hashlib.sha256(row).digest() for row in rows):
        digest.update(each)
    return digest.hexdigest()


def differences(was: Sets, is_now: Sets) -> tuple[str, ...]:
    """Say in words in what sets are not those that they were; empty if they are."""
    return tuple(
        said
        for name in Sets.__struct_fields__
        if (said := _difference(name, getattr(was, name), getattr(is_now, name))) is not None
    )


def _difference(name: str, was: DataSet | None, is_now: DataSet | None) -> str | None:
    if was == is_now:
        return None
    if was is None or is_now is None:
        return f"{name} set: {'none' if was is None else 'one'} before, {'none' if is_now is None else 'one'} now"
    found = [
        f"{getattr(was, key)} {key} before, {getattr(is_now, key)} now"
        for key in ("rows", "patients", "positives", "first", "last", "folds")
        if getattr(was, key) != getattr(is_now, key)
    ]
    if was.rows_sha256 != is_now.rows_sha256:
        found.append("other rows or labels")
    elif was.features_sha256 != is_now.features_sha256:
        found.append("the same rows and labels with other features")
    return f"{name} set: {'; '.join(found)}"
