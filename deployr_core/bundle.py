"""The bundle: everything that training promises serving, in one folder, every file under a digest.

``manifest.json``, ``features.json`` (the fitted declaration), the model (``model.treelite``, ``model.json`` or
``model.joblib``; or where it answers, ``model.http.json``), perhaps ``calibration.json``, and ``golden.json`` (vectors
with the scores they must get). Beside them may lie ``manifest.sig``. The bundle's own digest is that of its manifest's
bytes. Here are the shapes and checks, over bytes; reading and writing files is the edges' work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from deployr_core.coverage import Requirements
from deployr_core.document_columns import expect_examples
from deployr_core.document_reading import ReaderMissing
from deployr_core.documents import DOCUMENTS_FILE, Documents, column_names, parse_documents
from deployr_core.elsewhere import ModelElsewhere, Promise, Reach
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.golden import GoldenVector, ScoreDiffers, expect_promised, promise_of
from deployr_core.label_rules import LabelRule, outputs_of
from deployr_core.layout import layout_of
from deployr_core.model_format import MODEL_FILE, MODEL_FILES, ModelFormat, load_model
from deployr_core.outputs import Outputs
from deployr_core.scoring import ModelUnusable, ScoreInvalid, Scorer
from deployr_core.signing import SignatureInvalid, TrustedKey, verify_manifest

SCHEMA_VERSION = 3
MANIFEST_FILE = "manifest.json"
FEATURES_FILE = "features.json"
CALIBRATION_FILE = "calibration.json"
GOLDEN_FILE = "golden.json"
PARTS = (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE)
"""The parts of a bundle whose model is a tree ensemble without a calibration; `Manifest.part_names` gives any one's."""

BUNDLE_FILES = (MANIFEST_FILE, FEATURES_FILE, CALIBRATION_FILE, DOCUMENTS_FILE, GOLDEN_FILE, *MODEL_FILES.values())
"""Every name that a file of a bundle may have, the signature's apart."""

MANIFEST_LIMIT = 1_000_000
"""No honest manifest has more bytes; it holds no feature names."""

MODEL_ID = re.compile(r"[a-z][a-z0-9-]{0,62}[a-z0-9]\Z")
"""What a model may be called: it stands in URLs, ids and logs."""

SCORE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}\Z")
"""What a column of scores may be called in the EMR: it stands in the write's URL."""


class BundleInvalid(ValueError):
    """The bundle is not what its manifest says; nothing of it may be used. The message names the file."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Part(_Record, frozen=True, kw_only=True):
    """One file of the bundle: its SHA-256 in hex and its size in bytes."""

    sha256: str
    size: int


class Estimate(_Record, frozen=True, kw_only=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Task(_Record, frozen=True, kw_only=True):
    """What is predicted: about which unit, at which instant, what the label means, and how it is read.

    ``label`` is in words, ``rule`` is what decides it, in training as in service. ``panels``: the LOINC codes of the
    orders that the model is for; empty where the unit is a visit. ``outputs``: what the model gives; derived from the
    rule, but for which of several is the score.

    Raises:
        ValueError: outputs that such a rule does not have.
    """

    name: str
    unit: str
    index_time: str
    label: str
    rule: LabelRule
    panels: tuple[str, ...]
    outputs: Outputs

    def __post_init__(self) -> None:
        several = self.outputs.headline if len(self.outputs.names) > 1 else None
        if outputs_of(self.rule, headline=several) != self.outputs:
            raise ValueError("expected the outputs that the label's rule has")


class Training(_Record, frozen=True, kw_only=True):
    """How the model came to be. ``snapshot_sha256`` is over the training rows' ids, labels and features.

    ``label_means``: by output, the share of rows of that class or with that label; of a number, its mean.
    """

    estimator: str
    parameters: Mapping[str, str | int | float | bool | None]
    rows: int
    patients: int
    label_means: Mapping[str, float]
    snapshot_sha256: str
    library_versions: Mapping[str, str]


class Evaluation(_Record, frozen=True, kw_only=True):
    """How it did on patients it never saw; the intervals resample patients, not rows.

    ``label_means``: as in `Training`. ``figures``: ``auroc`` of a probability; of several, ``auroc`` is their mean and
    ``auroc.NAME`` each one's; of a number, ``mae`` and ``rmse`` in its unit, ``bias`` and ``r2``.
    """

    rows: int
    patients: int
    label_means: Mapping[str, float]
    figures: Mapping[str, Estimate]


class CodeVersion(_Record, frozen=True, kw_only=True):
    """Which code trained: the package's version, and the SHA-256 over the sources of the core and of training."""

    package: str
    sources_sha256: str


class Manifest(_Record, frozen=True, kw_only=True):
    """What a bundle holds and promises. ``score_name`` is what the EMR's score column is called.

    ``n_features``: how many columns the model is fed, those of documents included; ``spec_sha256`` is of the features'
    declaration. ``requires``: what must be known about a patient before the model may score. ``code_version`` is None
    where the bundle was put together by hand, as tests do.

    Raises:
        ValueError: a model id that could not stand in a URL, or a part missing or unknown.
    """

    schema_version: int
    model_id: str
    version: str
    task: Task
    score_name: str
    n_features: int
    spec_sha256: str
    parts: Mapping[str, Part]
    training: Training
    evaluation: Evaluation
    model: ModelFormat = ModelFormat()
    requires: Requirements = Requirements()
    code_version: CodeVersion | None = None

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not MODEL_ID.match(self.model_id):
            raise ValueError("expected a model_id of lower-case letters, digits and hyphens, such as hematocrit")
        if not SCORE_NAME.match(self.score_name):
            raise ValueError("expected a score_name of capitals, digits and underscores, such as HEMATOCRIT_ABNORMAL")
        if set(self.parts) != set(self.part_names):
            raise ValueError(f"expected the parts {', '.join(self.part_names)}")
        if {*self.training.label_means, *self.evaluation.label_means} != set(self.task.outputs.names):
            raise ValueError("expected the label's mean for each output")
        if CALIBRATION_FILE in self.parts and len(self.task.outputs.names) > 1:
            raise ValueError("expected a calibration of one probability only")
        if CALIBRATION_FILE in self.parts and self.model.is_elsewhere:
            raise ValueError("expected a model that answers elsewhere to calibrate there")

    @property
    def part_names(self) -> tuple[str, ...]:
        """Every file that the bundle must have beside its manifest, in a fixed order."""
        optional = (name for name in (CALIBRATION_FILE, DOCUMENTS_FILE) if name in self.parts)
        return (FEATURES_FILE, self.model.file_name, *optional, GOLDEN_FILE)

    def to_json(self) -> bytes:
        """Give the manifest's canonical bytes."""
        return msgspec.json.encode(self, order="sorted")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A verified bundle, ready to score. ``digest`` is the SHA-256 of the manifest's bytes.

    ``signed_by`` is the id of the trusted key that signed it; None where no key was asked for. ``documents``: what is
    taken from documents; None, as nearly always, where nothing is.
    """

    manifest: Manifest
    spec: FeatureSpec
    model: Scorer
    digest: str
    signed_by: str | None = None
    documents: Documents | None = None


LoadPickle = Callable[[Manifest, bytes], object]
"""Deserialises a joblib file, whose digest is right, into an estimator. The edges have it; the core runs no code."""


def sha256_hex(content: bytes) -> str:
    """Give the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def describe_part(content: bytes) -> Part:
    """Describe a file's bytes as the manifest lists them."""
    return Part(sha256=sha256_hex(content), size=len(content))


def parse_manifest(source: bytes) -> Manifest:
    """Read a manifest from JSON.

    Raises:
        BundleInvalid: not JSON, or not what a manifest must hold; the message names the place.
    """
    try:
        return msgspec.json.decode(source, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleInvalid(f"{MANIFEST_FILE}: {error}") from None


def check_part_size(manifest: Manifest, name: str, size: int) -> None:
    """Check a file's size against the manifest: before it is read, so that no oversized file fills the memory.

    Raises:
        BundleInvalid: another size than promised.
    """
    part = manifest.parts[name]
    if size != part.size:
        raise BundleInvalid(f"{name}: expected {part.size} bytes, as the manifest says, got {size}")


def check_part(manifest: Manifest, name: str, content: bytes) -> None:
    """Check a file's bytes against the manifest, before anything in them is looked at.

    Raises:
        BundleInvalid: another size or digest than promised.
    """
    check_part_size(manifest, name, len(content))
    part = manifest.parts[name]
    digest = sha256_hex(content)
    if digest != part.sha256:
        raise BundleInvalid(f"{name}: expected SHA-256 {part.sha256[:12]}…, as the manifest says, got {digest[:12]}…")


def checked_manifest(
    manifest_json: bytes, *, signature: bytes | None = None, trusted_keys: Sequence[TrustedKey] = ()
) -> tuple[Manifest, str | None]:
    """Check the signature, if there are keys to check it with, then read the manifest.

    Returns:
        The manifest, and the id of the key that signed it; None without keys.

    Raises:
        BundleInvalid: not signed by one of the keys, or not a manifest.
    """
    signed_by = None
    if trusted_keys:
        try:
            signed_by = verify_manifest(manifest_json, signature, trusted_keys)
        except SignatureInvalid as error:
            raise BundleInvalid(str(error)) from None
    return parse_manifest(manifest_json), signed_by


def open_bundle(
    manifest_json: bytes,
    parts: Mapping[str, bytes],
    *,
    signature: bytes | None = None,
    trusted_keys: Sequence[TrustedKey] = (),
    load_pickle: LoadPickle | None = None,
    reach: Reach | None = None,
) -> Bundle:
    """Check the signature and every digest, then read declaration and model, then score the golden vectors.

    A model that answers elsewhere and cannot be reached now is not refused: it proves itself before its first answer.

    Args:
        manifest_json: the bytes of ``manifest.json``.
        parts: the bytes of each other file, by name; files that the manifest does not name are not looked at.
        signature: the bytes of ``manifest.sig``, if there is one.
        trusted_keys: with any, the bundle must be signed by one of them.
        load_pickle: what deserialises a model that runs code; None refuses such models.
        reach: the way to a model that answers elsewhere; None refuses such models.

    Raises:
        BundleInvalid: anything is not as promised: the signature, a digest, the declaration, the model's number of
            features, or one golden score by one bit; or the model runs code, and that is not allowed.
    """
    manifest, signed_by = checked_manifest(manifest_json, signature=signature, trusted_keys=trusted_keys)
    for name in manifest.part_names:
        if name not in parts:
            raise BundleInvalid(f"{name}: expected in the bundle, but it is missing")
        check_part(manifest, name, parts[name])
    try:
        spec = parse_feature_spec(parts[FEATURES_FILE])
        documents = parse_documents(parts[DOCUMENTS_FILE], spec) if DOCUMENTS_FILE in manifest.parts else None
        names = column_names(spec, documents)
        manifest.requires.expect_known_groups(spec)
        golden = msgspec.json.decode(parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])
    except (ValueError, msgspec.MsgspecError) as error:
        raise BundleInvalid(f"expected a usable declaration and golden vectors: {error}") from error
    model = None if manifest.model.is_elsewhere else _load_model(manifest, parts, load_pickle=load_pickle)
    if (len(names), layout_of(spec).spec_digest) != (manifest.n_features, manifest.spec_sha256):
        raise BundleInvalid(f"{FEATURES_FILE}: expected the declaration that the manifest names, got another")
    size, n_outputs = manifest.n_features, len(manifest.task.outputs.names)
    try:
        promise = promise_of(golden, spec_sha256=manifest.spec_sha256, size=size, n_outputs=n_outputs)
    except ValueError as error:
        raise BundleInvalid(f"{GOLDEN_FILE}: {error}") from None
    if model is None:
        model = _reached(manifest, parts, names=names, promise=promise, reach=reach)
    else:
        _check_golden(manifest, model, promise)
    if documents is not None:
        try:
            expect_examples(documents)
        except (ValueError, ReaderMissing) as error:
            raise BundleInvalid(f"{DOCUMENTS_FILE}: {error}") from None
    return Bundle(
        manifest=manifest,
        spec=spec,
        model=model,
        digest=sha256_hex(manifest_json),
        signed_by=signed_by,
        documents=documents,
    )


def _load_model(manifest: Manifest, parts: Mapping[str, bytes], *, load_pickle: LoadPickle | None) -> Scorer:
    name, estimator = manifest.model.file_name, None
    if manifest.model.runs_code:
        if load_pickle is None:
            raise BundleInvalid(
                f"{name}: expected a model that is data, but loading this one runs code; if you trust who made it, "
                "allow it: DEPLOYR_ALLOW_PICKLE=1 in serving, --allow-pickle for commands"
            )
        estimator = load_pickle(manifest, parts[name])
    try:
        return load_model(
            manifest.model,
            parts[name],
            n_features=manifest.n_features,
            outputs=manifest.task.outputs,
            calibration=parts[CALIBRATION_FILE] if CALIBRATION_FILE in manifest.parts else None,
            estimator=estimator,
        )
    except ModelUnusable as error:
        raise BundleInvalid(f"{name}: {error}") from error


def _reached(
    manifest: Manifest, parts: Mapping[str, bytes], *, names: Sequence[str], promise: Promise, reach: Reach | None
) -> Scorer:
    name = manifest.model.file_name
    if reach is None:
        raise BundleInvalid(f"{name}: expected the address of the model, which answers elsewhere: DEPLOYR_PREDICTORS")
    try:
        return ModelElsewhere(parts[name], names=names, outputs=manifest.task.outputs, golden=promise, reach=reach)
    except (ModelUnusable, ScoreInvalid) as error:
        raise BundleInvalid(f"{name}: {error}") from error


def _check_golden(manifest: Manifest, model: Scorer, promise: Promise) -> None:
    try:
        expect_promised(model, promise)
    except ScoreDiffers as error:
        trained = dict(manifest.training.library_versions)
        raise BundleInvalid(f"{GOLDEN_FILE}: {error}; trained with {trained}") from None
    except (ScoreInvalid, ValueError) as error:
        raise BundleInvalid(f"{GOLDEN_FILE}: {error}") from error
