"""Models of notes and pictures: vocabularies learned from notes, rows as serving will compute them, and their bundles.

No warehouse mapping holds documents yet, so that this is a way from Python: a bundle with the same task and features,
such as a baseline that `deployr train` made, and for each of its rows the documents that were known at its index time.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bundle import FEATURES_FILE, GOLDEN_FILE, Evaluation, Manifest, Training, describe_part
from deployr_core.document_columns import Document, document_row, example_of, with_documents
from deployr_core.documents import DOCUMENTS_FILE, SCHEMA_VERSION, DocumentGroup, Documents, NoteTerms, parse_documents
from deployr_core.features import parse_feature_spec
from deployr_core.note_terms import terms_of
from deployr_core.target_figures import label_means
from deployr_core.vectorize import FeatureVector
from deployr_dev.code_version import code_version
from deployr_dev.model_part import ModelPart
from deployr_dev.models import model_part
from deployr_dev.probes import estimator_answers
from deployr_dev.trained import (
    ScoresDiffer,
    content_version,
    library_versions,
    measured_figures,
    mixed_vectors,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_APART = 1e-12
_DONORS = 64
_ANY_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)

Contents = Mapping[str, Sequence[tuple[str, bytes]]]
"""By group, the documents of one row, the latest first: content type, and bytes in UTF-8."""


class VocabularyTooSmall(ValueError):
    """No term is in the notes of enough patients."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentRows:
    """Rows with their documents' columns. ``labels``: as `deployr_core.outputs.Target` has them, one a row.

    ``patients``: whose each row is, int64, shape (n_rows,).
    """

    vectors: tuple[FeatureVector, ...] = field(repr=False)
    labels: NDArray[np.float64] = field(repr=False)
    patients: NDArray[np.int64] = field(repr=False)

    def csr(self) -> csr_matrix:
        """Give the rows as an estimator is fitted on them, float64, shape (n_rows, n_columns)."""
        from scipy.sparse import csr_matrix

        starts = np.cumsum([0, *(vector.indices.size for vector in self.vectors)])
        cells = [np.concatenate([getattr(vector, name) for vector in self.vectors]) for name in ("values", "indices")]
        return csr_matrix((*cells, starts), shape=(len(self.vectors), self.vectors[0].size))


def learned_terms(
    notes: Iterable[tuple[int, str]], *, most: int, min_patients: int = 10
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Learn a vocabulary and its weights from the training rows' notes: what `NoteTerms` wants as terms and weights.

    A vocabulary travels with its bundle, so that no term is in it that fewer than ``min_patients`` patients have: that
    keeps rare names out. Look through it all the same before it leaves the house.

    Args:
        notes: patient and text, one a row.
        most: how many terms at most: those in the most notes, then in the order of the alphabet.
        min_patients: in how many patients' notes each must be.

    Returns:
        The terms in the order of the alphabet, and of each ``ln((1 + notes) / (1 + notes with it)) + 1``.

    Raises:
        VocabularyTooSmall: no term is in so many patients' notes.
        ValueError: ``min_patients`` is under 2.
    """
    if min_patients < 2:
        raise ValueError("expected min_patients of at least 2: what one patient has may name that patient")
    in_notes: Counter[str] = Counter()
    of_patients: dict[str, set[int]] = {}
    total = 0
    for patient, text in notes:
        total += 1
        for term in set(terms_of(text)):
            in_notes[term] += 1
            of_patients.setdefault(term, set()).add(patient)
    common = [term for term, patients in of_patients.items() if len(patients) >= min_patients]
    if not common:
        raise VocabularyTooSmall(f"expected terms in the notes of at least {min_patients} patients, there are none")
    chosen = sorted(sorted(common, key=lambda term: (-in_notes[term], term))[:most])
    weights = np.log((1 + total) / (1 + np.array([in_notes[term] for term in chosen]))) + 1.0
    return tuple(chosen), tuple(weights.tolist())


def declared(*groups: DocumentGroup) -> Documents:
    """Give a declaration with a made-up example of each group, read as it is read here.

    Raises:
        ReaderMissing: a group takes pictures, and Pillow is not installed.
    """
    examples = [example_of(group, *made) for group in groups for made in _made_up(group)]
    return Documents(schema_version=SCHEMA_VERSION, groups=groups, examples=tuple(examples))


def with_contents(vector: FeatureVector, documents: Documents, contents: Contents) -> FeatureVector | None:
    """Give a row's features with its documents' columns, as serving will compute them; None where it will abstain."""
    came = {
        name: [Document(content=content, content_type=kind, known_at=_ANY_INSTANT) for kind, content in each]
        for name, each in contents.items()
    }
    row = document_row(documents, came)
    return None if row.shortfall else replace(with_documents(vector, row), coverage={})


def bundle_of_documents(
    manifest: Manifest,
    parts: Mapping[str, bytes],
    documents: Documents,
    estimator: Any,
    *,
    training: DocumentRows,
    held_out: DocumentRows,
    seed: int,
) -> tuple[Manifest, dict[str, bytes]]:
    """Give manifest and parts of the bundle of a model that takes documents.

    Args:
        manifest: of a bundle with the declaration and the task that the model has.
        parts: of that bundle, by name; of them the declaration is kept.
        documents: what is taken from documents.
        estimator: fitted on `DocumentRows.csr` of the training rows; it must be one that can be shipped as data.
        training: what it was fitted on.
        held_out: rows of other patients, which the figures and the golden vectors come from.
        seed: of the intervals and of the golden vectors.

    Raises:
        EstimatorRefused: it cannot be shipped as data.
        ScoresDiffer: what would be shipped does not score the held-out rows as the estimator does.
        TrainingImpossible: the held-out rows cannot carry one of the figures.
        ValueError: a patient is in both, or the declarations do not belong together.
    """
    if set(training.patients.tolist()) & set(held_out.patients.tolist()):
        raise ValueError("expected held-out rows of other patients than the training rows'")
    parse_documents(documents.to_json(), parse_feature_spec(parts[FEATURES_FILE]))
    outputs, size = manifest.task.outputs, training.vectors[0].size
    part = model_part(estimator, n_features=size, outputs=outputs)
    answers = _answers(part, estimator, held_out)
    rng = np.random.default_rng(seed)
    donors = [held_out.vectors[place] for place in rng.permutation(len(held_out.vectors))[:_DONORS].tolist()]
    files = {
        FEATURES_FILE: parts[FEATURES_FILE],
        **part.files(),
        DOCUMENTS_FILE: documents.to_json(),
        GOLDEN_FILE: msgspec.json.encode(mixed_vectors(donors, part.scorer(n_features=size).answer, rng=rng)),
    }
    made = msgspec.structs.replace(
        manifest,
        version=content_version(files),
        n_features=size,
        parts={name: describe_part(content) for name, content in files.items()},
        model=part.format,
        training=Training(
            estimator=type(estimator).__name__,
            parameters=_parameters(estimator),
            rows=len(training.vectors),
            patients=len(set(training.patients.tolist())),
            label_means=label_means(outputs, training.labels),
            snapshot_sha256=_snapshot(training),
            library_versions={**library_versions(), **_readers()},
        ),
        evaluation=Evaluation(
            rows=len(held_out.vectors),
            patients=len(set(held_out.patients.tolist())),
            label_means=label_means(outputs, held_out.labels),
            figures=measured_figures(
                outputs, held_out.labels, held_out.patients, answers, seed=seed, of=manifest.model_id
            ),
        ),
        code_version=code_version(),
    )
    return made, files


def _answers(part: ModelPart, estimator: Any, rows: DocumentRows) -> NDArray[np.float64]:
    scorer = part.scorer(n_features=rows.vectors[0].size)
    answers = np.array([scorer.answer(vector) for vector in rows.vectors], dtype=np.float64)
    expected = estimator_answers(estimator, rows.csr(), part.outputs.target)
    apart = float(np.max(np.abs(answers - expected)) / max(1.0, float(np.max(np.abs(expected)))))
    if not apart <= _APART:
        raise ScoresDiffer(f"expected the shipped model to score as the estimator, but they are {apart:.2g} apart")
    return answers


def _parameters(estimator: Any) -> dict[str, str | int | float | bool | None]:
    told = estimator.get_params(deep=False)
    return {name: value for name, value in told.items() if value is None or isinstance(value, str | int | float)}


def _snapshot(rows: DocumentRows) -> str:
    digest = hashlib.sha256()
    for vector in rows.vectors:
        digest.update(np.asarray(vector.indices, dtype="<i4").tobytes() + np.asarray(vector.values, "<f8").tobytes())
        digest.update(b"\n")
    digest.update(np.asarray(rows.labels, "<f8").tobytes() + np.asarray(rows.patients, "<i8").tobytes())
    return digest.hexdigest()


def _readers() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"lxml": version("lxml")}
    try:
        found["pillow"] = version("pillow")
    except PackageNotFoundError:
        return found
    return found


def _made_up(group: DocumentGroup) -> list[tuple[str, bytes]]:
    """Make documents that exercise how a group is read: of notes one of each type, of pictures a ramp of greys."""
    if isinstance(group, NoteTerms):
        words = [term.capitalize() for term in group.terms[:20]]
        marked = "".join(f"<p>{word[:1]}<b>{word[1:]}</b></p><script>{word}</script>" for word in words)
        made = {"text/plain": "; 12 ".join([*words, *words[:3]]), "text/html": f"<html><body>{marked}</body></html>"}
        return [(kind, made[kind].encode()) for kind in group.content_types]
    from PIL import Image

    height, width = 3 * group.rows + 1, 2 * group.columns + 1
    ramp = np.arange(height * width, dtype=np.int64).reshape(height, width) % 256
    file = io.BytesIO()
    Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2).astype(np.uint8)).save(file, "PNG")
    # A JPEG's pixels may differ in their last bit from one version of the library to the next; a PNG's may not.
    return [("image/png", file.getvalue())]
