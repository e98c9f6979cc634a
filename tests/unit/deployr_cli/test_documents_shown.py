"""What commands and the dashboard's extract say of a bundle that takes documents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from deployr_cli.bundle import bundle_app
from deployr_cli.monitor import SiteBundles
from deployr_cli.store_export import _FeatureNames
from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, sha256_hex
from deployr_core.documents import DOCUMENTS_FILE, column_groups, column_names
from deployr_core.features import parse_feature_spec
from deployr_core.packet import Scored, StoredVector
from deployr_dash.loading import load_models
from tests.document_parts import example_bundle


@pytest.fixture(scope="module")
def example(bundle_files: Any) -> Any:
    return example_bundle(bundle_files, kind="notes", model_id="pneumonia-notes", most=2, unusable="skip")


@pytest.fixture
def folder(example: Any, tmp_path: Any) -> Any:
    place = tmp_path / "bundles" / "pneumonia-notes"
    place.mkdir(parents=True)
    for name, content in {**example.parts, MANIFEST_FILE: example.manifest.to_json()}.items():
        (place / name).write_bytes(content)
    return place


def test_inspect_shows_which_documents_are_taken_and_what_is_made_of_them(folder: Any, example: Any) -> None:
    said = CliRunner().invoke(bundle_app, ["inspect", str(folder)], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    text = " ".join(said.output.replace("│", " ").split())
    (group,) = example.documents.groups
    assert f"admission_note {len(group.terms)} terms of the latest 2 in 7 days; type 34117-2;" in text
    assert "text/plain, text/html up to 1,000,000 bytes; none: abstain, unusable: skip" in text
    assert "documents.json" in text


def test_verify_reads_the_examples_and_the_golden_vectors(folder: Any) -> None:
    said = CliRunner().invoke(bundle_app, ["verify", str(folder)])
    assert (said.exit_code, "every digest and golden score as promised" in said.output) == (0, True)


def test_the_extract_and_the_export_name_the_columns_of_documents(folder: Any, example: Any, tmp_path: Any) -> None:
    site = SimpleNamespace(bundles=folder.parent, bundle_archive=None)
    files = SiteBundles(site).files(sha256_hex(example.manifest.to_json()))  # type: ignore[arg-type]
    assert files is not None
    assert set(files) == {MANIFEST_FILE, FEATURES_FILE, DOCUMENTS_FILE}
    place = tmp_path / "extract" / "models" / "digest"
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    (held,) = load_models(tmp_path / "extract")
    assert held.documents == example.documents
    spec = parse_feature_spec(example.parts[FEATURES_FILE])
    names = column_names(spec, example.documents)
    assert len(names) == len(column_groups(spec, example.documents)) == example.manifest.n_features
    vector = StoredVector(spec_sha256=spec.digest(), size=len(names), indices=(), values=())
    scored = Scored(score=0.5, vector=vector, coverage={}, entity_id=None)
    assert _FeatureNames((folder,)).of(SimpleNamespace(outcome=scored)) == names  # type: ignore[arg-type]
