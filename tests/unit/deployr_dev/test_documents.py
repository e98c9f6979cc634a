"""Models of notes and of pictures: what is learned, what is shipped, and that it scores as what was trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from deployr_core import bundle as bundles
from deployr_core.bundle import BundleInvalid, describe_part, open_bundle
from deployr_core.documents import DOCUMENTS_FILE
from deployr_core.note_terms import terms_of
from deployr_dev.documents import VocabularyTooSmall, bundle_of_documents, learned_terms, with_contents
from tests.document_parts import example_bundle, notes_of, nothing_known, pictures_of


@pytest.fixture(scope="module")
def of_notes(bundle_files: Any) -> Any:
    return example_bundle(bundle_files, kind="notes", model_id="pneumonia-notes")


@pytest.fixture(scope="module")
def of_pictures(bundle_files: Any) -> Any:
    return example_bundle(bundle_files, kind="pictures", model_id="pneumonia-films")


def opened(example: Any) -> Any:
    return open_bundle(example.manifest.to_json(), example.parts)


# -- notes


def test_only_terms_that_several_patients_have_get_into_a_vocabulary_however_often_one_has_them() -> None:
    notes = [(1, "Kowalski fever cough"), (1, "Kowalski fever"), (1, "Kowalski"), (2, "Fever 39"), (3, "cough fever")]
    terms, weights = learned_terms(notes, most=10, min_patients=2)
    assert terms == ("cough", "fever")
    # 5 notes; a cough in 2 of them, fever in 4: ln(6 / 3) + 1 and ln(6 / 5) + 1
    assert weights == pytest.approx((np.log(2.0) + 1.0, np.log(1.2) + 1.0), abs=1e-15)
    assert learned_terms(notes, most=1, min_patients=2)[0] == ("fever",)


def test_a_vocabulary_of_one_patients_words_is_refused() -> None:
    with pytest.raises(VocabularyTooSmall, match="at least 10 patients"):
        learned_terms([(1, "fever")] * 20, most=10)
    with pytest.raises(ValueError, match="at least 2"):
        learned_terms([(1, "fever")], most=10, min_patients=1)


def test_the_bundle_scores_notes_as_scikit_learns_own_pipeline_does(of_notes: Any) -> None:
    (group,) = of_notes.documents.groups
    vectorizer = TfidfVectorizer(analyzer=terms_of, vocabulary=list(group.terms))
    theirs = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000, tol=1e-10))
    theirs.fit([of_notes.texts[place] for place in of_notes.train], of_notes.ill[of_notes.train])
    assert group.weights == pytest.approx(vectorizer.idf_, abs=1e-14)
    # Their rows are ours, to the last bits of their sums of squares.
    ours = of_notes.rows(of_notes.test).csr()[:, -len(group.terms) :].toarray()
    rows = vectorizer.transform([of_notes.texts[place] for place in of_notes.test]).toarray()
    assert np.max(np.abs(ours - rows)) < 1e-15
    # And with their coefficients, so is the probability.
    final = theirs[-1]
    spec_columns = len(of_notes.rows(of_notes.test).vectors[0].dense()) - len(group.terms)
    wide = LogisticRegression()
    wide.classes_, wide.intercept_ = final.classes_, final.intercept_
    wide.coef_ = np.concatenate([np.zeros((1, spec_columns)), final.coef_], axis=1)
    wide.n_features_in_ = wide.coef_.shape[1]
    from deployr_dev.models import model_part

    scorer = model_part(wide, n_features=wide.n_features_in_).scorer(n_features=wide.n_features_in_)
    expected = theirs.predict_proba([of_notes.texts[place] for place in of_notes.test])[:, 1]
    answers = [scorer.score(vector) for vector in of_notes.rows(of_notes.test).vectors]
    assert np.max(np.abs(np.array(answers) - expected)) < 1e-14


def test_the_model_of_notes_tells_the_ill_from_the_others_and_names_its_own_words(of_notes: Any) -> None:
    assert of_notes.manifest.evaluation.figures["auroc"].low > 0.8
    bundle = opened(of_notes)
    assert bundle.documents == of_notes.documents
    vector = with_contents(
        nothing_known(bundle.spec), bundle.documents, {"admission_note": [("text/html", b"<p>Pneumonia, Kowalski</p>")]}
    )
    assert vector is not None
    explanation = bundle.model.explain(vector)
    from deployr_core.concepts import contributions_of

    told = {each.concept: each.value for each in contributions_of(explanation, bundle.spec, bundle.documents)}
    assert set(told) == {"Admission note: pneumonia", "Admission note: any"}
    assert told["Admission note: pneumonia"] > 0.0


# -- pictures


def test_the_model_of_pictures_scores_them_as_its_estimator_and_tells_them_apart(of_pictures: Any) -> None:
    assert of_pictures.manifest.evaluation.figures["auroc"].low > 0.8
    bundle, rows = opened(of_pictures), of_pictures.rows(of_pictures.test)
    expected = of_pictures.estimator.predict_proba(rows.csr())[:, 1]
    answers = np.array([bundle.model.score(vector) for vector in rows.vectors])
    assert np.max(np.abs(answers - expected)) < 1e-12


def test_trees_take_pictures_as_well(bundle_files: Any) -> None:
    forest = RandomForestClassifier(n_estimators=5, random_state=0)
    example = example_bundle(bundle_files, kind="pictures", model_id="films", estimator=forest, rows=3, columns=3)
    assert opened(example).manifest.model.kind == "treelite"


# -- bundles


def test_the_same_work_is_the_same_bundle(of_notes: Any, bundle_files: Any) -> None:
    again = example_bundle(bundle_files, kind="notes", model_id="pneumonia-notes")
    assert (again.manifest.to_json(), again.parts) == (of_notes.manifest.to_json(), of_notes.parts)


def test_no_golden_vector_is_a_patients_row(of_notes: Any) -> None:
    golden = msgspec.json.decode(of_notes.parts[bundles.GOLDEN_FILE], type=tuple[bundles.GoldenVector, ...])
    held = {tuple(vector.values.tolist()) for vector in of_notes.rows(of_notes.train + of_notes.test).vectors}
    assert len(golden) == 16
    assert not {row.values for row in golden} & held


def test_held_out_rows_of_a_training_patient_are_refused(of_notes: Any, bundle_files: Any) -> None:
    rows = of_notes.rows(of_notes.train)
    with pytest.raises(ValueError, match="other patients"):
        bundle_of_documents(
            of_notes.manifest,
            bundle_files,
            of_notes.documents,
            of_notes.estimator,
            training=rows,
            held_out=dataclasses.replace(rows, patients=rows.patients),
            seed=1,
        )


def changed(example: Any, **parts: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Give the bundle with other parts, whose digests are right."""
    files = {**example.parts, **parts}
    described = {name: describe_part(content) for name, content in files.items()}
    return msgspec.structs.replace(example.manifest, parts=described).to_json(), files


def test_a_bundle_whose_notes_are_read_otherwise_here_is_refused(of_notes: Any) -> None:
    documents = of_notes.documents
    spoilt = msgspec.structs.replace(documents.examples[0], content=b"other words")
    other = msgspec.structs.replace(documents, examples=(spoilt, *documents.examples[1:]))
    with pytest.raises(BundleInvalid, match=r"documents\.json: expected example 0"):
        open_bundle(*changed(of_notes, **{DOCUMENTS_FILE: other.to_json()}))


def test_a_bundle_with_another_vocabulary_than_its_model_has_is_refused(of_notes: Any) -> None:
    texts = [of_notes.texts[place] for place in of_notes.train]
    fewer = notes_of([text.replace("pneumonia", "x") for text in texts], of_notes.train)
    from deployr_dev.documents import declared

    with pytest.raises(BundleInvalid, match="declaration that the manifest names"):
        open_bundle(*changed(of_notes, **{DOCUMENTS_FILE: declared(fewer).to_json()}))


def test_a_bundle_without_the_documents_that_its_manifest_names_is_refused(of_notes: Any) -> None:
    with pytest.raises(BundleInvalid, match=r"documents\.json: expected in the bundle"):
        open_bundle(
            of_notes.manifest.to_json(),
            {name: content for name, content in of_notes.parts.items() if name != DOCUMENTS_FILE},
        )


def test_without_pillow_a_bundle_of_pictures_is_refused_and_one_of_notes_is_not(
    of_pictures: Any, of_notes: Any, monkeypatch: Any
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BundleInvalid, match=r"deployr\[images\]"):
        opened(of_pictures)
    assert opened(of_notes).documents is not None


def test_the_declaration_of_pictures_travels_as_data(of_pictures: Any) -> None:
    held = msgspec.json.decode(of_pictures.parts[DOCUMENTS_FILE])
    assert held["groups"][0]["kind"] == "cells"
    assert [pictures_of().rows, pictures_of().columns] == [6, 5]
