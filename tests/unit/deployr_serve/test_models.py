from __future__ import annotations

import msgspec
import pytest

from deployr_core.bundle import GOLDEN_FILE, MANIFEST_FILE, PARTS, parse_manifest
from deployr_core.model_format import MODEL_FILE
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.core.errors import ModelUnavailable, UnknownModel


@pytest.fixture
def folder_of(tmp_path, bundle_files):
    """Give a function that writes a folder of named bundles, each with these files in place of its own."""

    def write(**bundles):
        for name, changes in bundles.items():
            manifest = parse_manifest(bundle_files[MANIFEST_FILE])
            renamed = msgspec.structs.replace(manifest, model_id=name).to_json()
            path = tmp_path / name
            path.mkdir()
            for file, content in {**bundle_files, MANIFEST_FILE: renamed, **changes}.items():
                if content is not None:
                    (path / file).write_bytes(content)
        return tmp_path

    return write


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def test_each_folder_is_a_model_by_its_name(folder_of):
    models = BundleFolder(folder_of(hematocrit={}, albumin={}))
    assert models.deployed() == {"hematocrit": None, "albumin": None}
    assert models.bundle("albumin").manifest.model_id == "albumin"


@pytest.mark.parametrize("file", [MANIFEST_FILE, *PARTS])
def test_a_missing_file_disables_its_own_model_and_is_named(folder_of, file):
    models = BundleFolder(folder_of(hematocrit={file: None}, albumin={}))
    with pytest.raises(ModelUnavailable):
        models.bundle("hematocrit")
    assert file in models.deployed()["hematocrit"]
    assert models.bundle("albumin").manifest.model_id == "albumin"


@pytest.mark.parametrize("file", PARTS)
def test_one_flipped_bit_disables_its_own_model_and_names_the_file(folder_of, bundle_files, file):
    models = BundleFolder(folder_of(hematocrit={file: flipped(bundle_files[file])}, albumin={}))
    with pytest.raises(ModelUnavailable):
        models.bundle("hematocrit")
    assert models.deployed()["hematocrit"].startswith(f"{file}: expected SHA-256")
    assert models.deployed()["albumin"] is None


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff"])
def test_a_manifest_that_is_none_disables_its_model(folder_of, content):
    assert BundleFolder(folder_of(hematocrit={MANIFEST_FILE: content})).deployed()["hematocrit"] is not None


def test_a_truncated_model_is_noticed_by_its_size(folder_of, bundle_files):
    reason = BundleFolder(folder_of(hematocrit={MODEL_FILE: bundle_files[MODEL_FILE][:-1]})).deployed()["hematocrit"]
    size = len(bundle_files[MODEL_FILE])
    assert reason == f"{MODEL_FILE}: expected {size} bytes, as the manifest says, got {size - 1}"


def test_a_bundle_in_a_folder_of_another_name_is_not_served_under_it(folder_of, bundle_files):
    models = BundleFolder(folder_of(albumin={MANIFEST_FILE: bundle_files[MANIFEST_FILE]}))
    with pytest.raises(ModelUnavailable):
        models.bundle("albumin")
    with pytest.raises(UnknownModel):
        models.bundle("hematocrit")


def test_what_could_not_be_a_models_name_is_passed_over(folder_of, tmp_path):
    folder_of(hematocrit={})
    (tmp_path / "Not-A-Model").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme").write_text("no folder")
    assert BundleFolder(tmp_path).deployed() == {"hematocrit": None}


def test_a_folder_without_a_file_of_a_bundle_is_passed_over_as_trainings_reports_are(folder_of, tmp_path):
    folder_of(hematocrit={})
    (tmp_path / "reports" / "hematocrit").mkdir(parents=True)
    (tmp_path / "reports" / "index.html").write_text("<!doctype html>")
    assert BundleFolder(tmp_path).deployed() == {"hematocrit": None}


def test_a_folder_that_is_not_there_holds_no_model(tmp_path):
    models = BundleFolder(tmp_path / "nowhere")
    assert models.deployed() == {}
    with pytest.raises(UnknownModel):
        models.bundle("hematocrit")


def test_a_score_that_this_machine_does_not_reproduce_disables_the_model(folder_of, bundle_files):
    from deployr_core.bundle import describe_part

    golden = bundle_files[GOLDEN_FILE].replace(b"0.75", b"0.7500000000000001")
    manifest = parse_manifest(bundle_files[MANIFEST_FILE])
    parts = {**manifest.parts, GOLDEN_FILE: describe_part(golden)}
    changed = msgspec.structs.replace(manifest, parts=parts).to_json()
    models = BundleFolder(folder_of(hematocrit={GOLDEN_FILE: golden, MANIFEST_FILE: changed}))
    assert models.deployed()["hematocrit"].startswith(f"{GOLDEN_FILE}: vector 1 does not get its score")
