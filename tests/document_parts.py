"""The two worked examples: a model of notes and a model of pictures, made of what nobody ever wrote or took.

Every patient has one note and one picture. Notes of those with the outcome mostly speak of pneumonia, their pictures
are mostly bright at the bottom right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from deployr_core import bundle as bundles
from deployr_core.bundle import parse_manifest
from deployr_core.codes import LOINC, Code
from deployr_core.documents import DocumentGroup, ImageCells, NoteTerms
from deployr_core.features import parse_feature_spec
from deployr_core.layout import layout_of
from deployr_core.vectorize import FeatureVector
from deployr_dev.documents import DocumentRows, bundle_of_documents, declared, learned_terms, with_contents

NOTE = Code(LOINC, "34117-2")
CHEST = Code(LOINC, "36643-5")
PATIENTS = 80

_WITH = ("pneumonia", "fever", "consolidation", "cough", "antibiotics")
_WITHOUT = ("fracture", "plaster", "physiotherapy", "swelling", "walking")
_ALL = ("patient", "admitted", "history", "reviewed", "ward")


def made_note(rng: np.random.Generator, *, ill: bool) -> str:
    """Write a note of 14 words; a fifth of its telling words are of the other kind."""
    own, others = (_WITH, _WITHOUT) if ill else (_WITHOUT, _WITH)
    told = [str(rng.choice(others if rng.random() < 0.2 else own)) for _ in range(6)]
    said = [*(str(rng.choice(_ALL)) for _ in range(8)), *told]
    return " ".join(said[place] for place in rng.permutation(len(said))).capitalize() + ". 12/03, bed 4."


def made_picture(rng: np.random.Generator, *, ill: bool) -> bytes:
    """Take a noisy picture of 40 by 48 pixels, brighter at the bottom right of those who are ill."""
    pixels = rng.normal(90.0, 25.0, (48, 40))
    pixels[28:, 22:] += 70.0 if ill else 10.0
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def notes_of(texts: list[str], patients: list[int], **changes: Any) -> NoteTerms:
    terms, weights = learned_terms(zip(patients, texts, strict=True), most=50)
    given = {"name": "admission_note", "types": (NOTE,), "lookback_days": 7, "unit_length": True, **changes}
    return NoteTerms(terms=terms, weights=weights, **given)


def pictures_of(**changes: Any) -> ImageCells:
    given = {"name": "chest_film", "types": (CHEST,), "lookback_days": 30, "rows": 6, "columns": 5}
    return ImageCells(**{**given, **changes})


def example_bundle(
    bundle_files: Mapping[str, bytes], *, kind: str, model_id: str, estimator: Any = None, **changes: Any
) -> SimpleNamespace:
    """Train on three quarters of the patients, measure on the others.

    Returns:
        ``manifest`` and ``parts`` of the bundle; the ``documents`` and the ``estimator``; ``contents`` of each patient,
        ``rows`` as an estimator gets them.
    """
    rng = np.random.default_rng(7)
    ill = rng.random(PATIENTS) < 0.5
    patients = list(range(PATIENTS))
    train, test = patients[: PATIENTS * 3 // 4], patients[PATIENTS * 3 // 4 :]
    texts = [made_note(rng, ill=bool(each)) for each in ill]
    group: DocumentGroup
    if kind == "notes":
        group = notes_of([texts[place] for place in train], train, **changes)
        contents = [{group.name: [("text/plain", text.encode())]} for text in texts]
    else:
        group = pictures_of(**changes)
        contents = [{group.name: [("image/png", made_picture(rng, ill=bool(each)))]} for each in ill]
    documents = declared(group)
    spec = parse_feature_spec(bundle_files[bundles.FEATURES_FILE])
    vectors = [with_contents(nothing_known(spec), documents, each) for each in contents]
    assert all(vector is not None for vector in vectors)

    def rows(places: list[int]) -> DocumentRows:
        return DocumentRows(
            vectors=tuple(vectors[place] for place in places),
            labels=ill[places].astype(np.float64),
            patients=np.array(places, dtype=np.int64),
        )

    estimator = LogisticRegression(C=10.0, max_iter=1000) if estimator is None else estimator
    estimator.fit(rows(train).csr(), rows(train).labels)
    base = parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    manifest, parts = bundle_of_documents(
        msgspec.structs.replace(base, model_id=model_id, score_name=model_id.replace("-", "_").upper()),
        bundle_files,
        documents,
        estimator,
        training=rows(train),
        held_out=rows(test),
        seed=1,
    )
    return SimpleNamespace(
        manifest=manifest,
        parts=parts,
        documents=documents,
        estimator=estimator,
        contents=contents,
        texts=texts,
        ill=ill,
        rows=rows,
        train=train,
        test=test,
    )


def nothing_known(spec: Any) -> FeatureVector:
    """Give the features of a patient about whom nothing is known."""
    layout = layout_of(spec)
    nothing = np.array([], dtype=np.float64)
    return FeatureVector(
        spec_digest=layout.spec_digest,
        size=len(layout.names),
        indices=nothing.astype(np.int32),
        values=nothing,
        coverage={},
    )
