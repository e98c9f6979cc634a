"""The bundle: everything that training promises serving, in one folder, every file under a digest.

``manifest.json``, ``features.json`` (the fitted declaration), ``model.treelite`` (the ensemble's checkpoint) and
``golden.json`` (vectors with the scores they must get). The bundle's own digest is that of its manifest's bytes.
Here are the shapes and the checks, over bytes; reading and writing files is the edges' work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise

import msgspec
import numpy as np

from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.layout import layout_of
from deployr_core.scoring import ScoreInvalid, TreeEnsemble
from deployr_core.vectorize import FeatureVector

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
FEATURES_FILE = "features.json"
MODEL_FILE = "model.treelite"
GOLDEN_FILE = "golden.json"
PARTS = (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE)

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
    """What is predicted: about which unit, at which instant, and what the label means, in words."""

    name: str
    unit: str
    index_time: str
    label: str
    components: tuple[str, ...]
    """The LOINC codes of the result that decides the label; a laboratory uses one of them."""
    panels: tuple[str, ...]
    """The LOINC codes of the orders that the model is for."""
    label_window_hours: int
    """How long after the index time a result may come; then the label is ripe, whether or not one came."""


class Training(_Record, frozen=True, kw_only=True):
    """How the model came to be. ``snapshot_sha256`` is over the training rows' ids, labels and features."""

    estimator: str
    parameters: Mapping[str, str | int | float | bool | None]
    rows: int
    patients: int
    prevalence: float
    snapshot_sha256: str
    library_versions: Mapping[str, str]


class Evaluation(_Record, frozen=True, kw_only=True):
    """How it did on patients it never saw; the interval resamples patients, not rows."""

    rows: int
    patients: int
    prevalence: float
    auroc: Estimate


class Manifest(_Record, frozen=True, kw_only=True):
    """What a bundle holds and promises. ``score_name`` is what the EMR's score column is called.

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

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not MODEL_ID.match(self.model_id):
            raise ValueError("expected a model_id of lower-case letters, digits and hyphens, such as hematocrit")
        if not SCORE_NAME.match(self.score_name):
            raise ValueError("expected a score_name of capitals, digits and underscores, such as HEMATOCRIT_ABNORMAL")
        if set(self.parts) != set(PARTS):
            raise ValueError(f"expected the parts {', '.join(PARTS)}")

    def to_json(self) -> bytes:
        """Give the manifest's canonical bytes."""
        return msgspec.json.encode(self, order="sorted")


class GoldenVector(_Record, frozen=True, kw_only=True):
    """A row and the score that it must get, to the bit, wherever the bundle is loaded."""

    indices: tuple[int, ...]
    values: tuple[float, ...]
    score: float

    def __post_init__(self) -> None:
        if len(self.indices) != len(self.values):
            raise ValueError("expected as many values as indices in a golden vector")
        if any(low >= high for low, high in pairwise((-1, *self.indices))):
            raise ValueError("expected a golden vector's indices ascending from 0, each once")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A verified bundle, ready to score. ``digest`` is the SHA-256 of the manifest's bytes."""

    manifest: Manifest
    spec: FeatureSpec
    model: TreeEnsemble
    digest: str


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


def check_part(manifest: Manifest, name: str, content: bytes) -> None:
    """Check a file's bytes against the manifest, before anything in them is looked at.

    Raises:
        BundleInvalid: another size or digest than promised.
    """
    part = manifest.parts[name]
    if len(content) != part.size:
        raise BundleInvalid(f"{name}: expected {part.size} bytes, as the manifest says, got {len(content)}")
    digest = sha256_hex(content)
    if digest != part.sha256:
        raise BundleInvalid(f"{name}: expected SHA-256 {part.sha256[:12]}…, as the manifest says, got {digest[:12]}…")


def open_bundle(manifest_json: bytes, parts: Mapping[str, bytes]) -> Bundle:
    """Check every digest, then read the declaration and the model, then score the golden vectors.

    Args:
        manifest_json: the bytes of ``manifest.json``.
        parts: the bytes of each other file, by name.

    Raises:
        BundleInvalid: anything is not as promised: a digest, the declaration, the model's number of features, or
            one golden score by one bit.
    """
    manifest = parse_manifest(manifest_json)
    for name in PARTS:
        if name not in parts:
            raise BundleInvalid(f"{name}: expected in the bundle, but it is missing")
        check_part(manifest, name, parts[name])
    try:
        spec = parse_feature_spec(parts[FEATURES_FILE])
        layout = layout_of(spec)
        model = TreeEnsemble(parts[MODEL_FILE], n_features=manifest.n_features)
        golden = msgspec.json.decode(parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])
    except (ValueError, msgspec.MsgspecError) as error:
        raise BundleInvalid(f"expected a usable declaration, model and golden vectors: {error}") from error
    if (len(layout.names), layout.spec_digest) != (manifest.n_features, manifest.spec_sha256):
        raise BundleInvalid(f"{FEATURES_FILE}: expected the declaration that the manifest names, got another")
    bundle = Bundle(manifest=manifest, spec=spec, model=model, digest=sha256_hex(manifest_json))
    _check_golden(bundle, golden)
    return bundle


def _check_golden(bundle: Bundle, golden: tuple[GoldenVector, ...]) -> None:
    if not golden:
        raise BundleInvalid(f"{GOLDEN_FILE}: expected at least one golden vector")
    for number, row in enumerate(golden):
        if row.indices and row.indices[-1] >= bundle.manifest.n_features:
            raise BundleInvalid(f"{GOLDEN_FILE}: expected vector {number} to name only features that there are")
        vector = FeatureVector(
            spec_digest=bundle.manifest.spec_sha256,
            size=bundle.manifest.n_features,
            indices=np.array(row.indices, dtype=np.int32),
            values=np.array(row.values, dtype=np.float64),
            coverage={},
        )
        if _score(bundle.model, vector, number) != row.score:
            raise BundleInvalid(
                f"{GOLDEN_FILE}: vector {number} does not get its score on this machine; "
                f"trained with {dict(bundle.manifest.training.library_versions)}"
            )


def _score(model: TreeEnsemble, vector: FeatureVector, number: int) -> float:
    try:
        return model.score(vector)
    except (ScoreInvalid, ValueError) as error:
        raise BundleInvalid(f"{GOLDEN_FILE}: vector {number} cannot be scored: {error}") from error
