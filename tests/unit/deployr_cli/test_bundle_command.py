"""`deployr bundle`: what it says of a good bundle, and the one line that it says of a bad one."""

from __future__ import annotations

import json
import stat

import pytest
from typer.testing import CliRunner

from deployr_cli.bundle import bundle_app
from deployr_cli.failures import CommandFailed
from deployr_core.bundle import FEATURES_FILE, GOLDEN_FILE, MANIFEST_FILE, sha256_hex
from deployr_core.model_format import MODEL_FILE
from deployr_core.registry.run import RUN_FILE, RUN_SIGNATURE_FILE
from deployr_core.signing import SIGNATURE_FILE, trusted_key, verify_manifest
from tests.registry_parts import write_run


def run(*arguments):
    """Give what the command says; a refusal is raised, as `deployr_cli.main.run` finds it."""
    result = CliRunner().invoke(bundle_app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    with pytest.raises(CommandFailed) as failure:
        run(*arguments)
    message = str(failure.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(bundles_folder):
    return bundles_folder / "hematocrit"


@pytest.fixture
def keys(tmp_path):
    """Give the files of a new key pair."""
    run("keygen", tmp_path / "ours.pem")
    return tmp_path / "ours.pem", tmp_path / "ours.pub.pem"


def test_inspect_shows_what_it_is_its_features_by_group_its_digests_and_how_it_did(folder, bundle):
    said = run("inspect", folder)
    assert "hematocrit 1.0.0" in said
    assert "RandomForestClassifier, kept as treelite" in said
    for group, features in {"sex": 2, "labs": 2, "problem_list": 1, "drugs": 1}.items():
        assert [line.split("│")[-2].strip() for line in said.splitlines() if f"  {group} " in line] == [str(features)]
    assert "0.750 (0.500 to 1.000, 95 %)" in said
    for part in bundle.manifest.parts.values():
        assert part.sha256 in said
    assert bundle.manifest.training.snapshot_sha256 in said


def test_inspect_names_files_that_are_not_of_the_bundle(folder):
    (folder / "notes.txt").write_text("seen by the committee")
    assert "notes.txt" in run("inspect", folder)


def test_verify_says_ok(folder):
    assert run("verify", folder) == "ok: hematocrit 1.0.0, 6 features, every digest and golden score as promised\n"


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("name", [FEATURES_FILE, MODEL_FILE, GOLDEN_FILE])
@pytest.mark.parametrize("content", [None, b"", b"changed"])
def test_a_bad_file_is_one_line_with_folder_file_expectation_and_remedy(folder, command, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    message = refused(command, folder)
    assert message.startswith(f"{folder}: {name}: expected ")
    assert message.endswith("copy the bundle again from where it was made, or train it again")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_folder_that_is_not_there_is_named(tmp_path, command):
    assert (
        refused(command, tmp_path / "nowhere")
        == f"{tmp_path}/nowhere: expected the folder of a bundle, but there is none"
    )


def test_a_bundle_that_was_signed_verifies_with_its_key(folder, keys):
    private, public = keys
    assert "signed: hematocrit 1.0.0 by" in run("sign", folder, "--key", private)
    assert "every digest and golden score as promised, signed by" in run("verify", folder, "--key", public)
    assert "a key that you trust" in run("inspect", folder, "--key", public)
    assert "not checked: pass that key with --key" in run("inspect", folder)
    assert "ok: " in run("verify", folder)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_bundle_without_the_keys_signature_is_refused(folder, keys, tmp_path, command):
    assert "but the bundle is not signed; have it signed" in refused(command, folder, "--key", keys[1])
    run("keygen", tmp_path / "theirs.pem")
    run("sign", folder, "--key", tmp_path / "theirs.pem")
    assert "expected a signature by a trusted key" in refused(command, folder, "--key", keys[1])
    manifest = folder / MANIFEST_FILE
    run("sign", folder, "--key", keys[0])
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert "the manifest or the signature was changed" in refused(command, folder, "--key", keys[1])


def test_with_a_runs_bundle_its_record_is_signed_and_never_another_ones(bundle_files, keys, tmp_path):
    made, other = (write_run(tmp_path / "runs", bundle_files, version=each, signed=False) for each in ("2", "3"))
    at = tmp_path / "runs" / made.run_id
    assert f"signed: its run's record, in {at / RUN_SIGNATURE_FILE}" in run("sign", at / "bundle", "--key", keys[0])
    public = trusted_key(keys[1].read_bytes())
    assert verify_manifest((at / RUN_FILE).read_bytes(), (at / RUN_SIGNATURE_FILE).read_bytes(), (public,))
    (at / RUN_FILE).write_bytes(other.to_json())
    assert "expected the record of this bundle's run" in refused("sign", at / "bundle", "--key", keys[0])


def test_a_bundle_with_a_wrong_digest_is_not_signed(folder, keys):
    (folder / MODEL_FILE).write_bytes(b"changed")
    assert MODEL_FILE in refused("sign", folder, "--key", keys[0])
    assert not (folder / SIGNATURE_FILE).exists()


def test_signing_again_replaces_the_signature_and_leaves_nothing_beside(folder, keys):
    before = {path.name for path in folder.iterdir()}
    run("sign", folder, "--key", keys[0])
    first = (folder / SIGNATURE_FILE).read_bytes()
    run("sign", folder, "--key", keys[0])
    assert (folder / SIGNATURE_FILE).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {SIGNATURE_FILE}


def test_the_private_key_is_its_owners_alone_and_never_overwritten(keys):
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes(), public.read_bytes()
    assert "a key is never overwritten" in refused("keygen", private)
    assert (private.read_bytes(), public.read_bytes()) == before


def test_a_key_of_the_wrong_half_is_refused_by_its_file(folder, keys):
    private, public = keys
    assert f"{private}: expected a public Ed25519 key" in refused("verify", folder, "--key", private)
    assert f"{public}: expected a private Ed25519 key" in refused("sign", folder, "--key", public)


def test_prove_tries_every_model_and_notes_what_passed(bundles_folder):
    assert "ok: 2 models" in run("prove", bundles_folder)
    noted = json.loads((bundles_folder / ".proofs.json").read_bytes())
    manifests = (bundles_folder / name / MANIFEST_FILE for name in ("anemia", "hematocrit"))
    assert noted["digests"] == [sha256_hex(each.read_bytes()) for each in manifests]


def test_prove_names_the_model_that_does_not_pass(bundles_folder):
    (bundles_folder / "anemia" / MODEL_FILE).write_bytes(b"no trees")
    assert "anemia: model.treelite: expected" in refused("prove", bundles_folder)
