"""What serving will not load: models that run code, where nobody allowed it, and bundles that nobody trusted signed."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.metadata import version

import joblib
import msgspec
import pytest

from deployr_core import bundle as bundles
from deployr_core import model_format
from deployr_core.signing import SIGNATURE_FILE, sign_manifest, trusted_key
from deployr_serve.adapters.bundle_files import read_bundle
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid

RAN = []


def leave_a_trace():
    RAN.append("code of the bundle ran")
    return Half()


class Half:
    """Half for everybody; pickled, it runs code."""

    def predict(self, rows):
        return [0.5] * len(rows)

    def __reduce__(self):
        return leave_a_trace, ()


HALF = Half()


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@pytest.fixture
def write(tmp_path, bundle_files):
    """Give a function that writes a hematocrit bundle whose model runs code; ``change`` spoils its files last."""

    def make(*, model=HALF, versions=None, change=None, key=None):
        if isinstance(model, bytes):
            pickled = model
        else:
            file = io.BytesIO()
            joblib.dump(model, file)
            pickled = file.getvalue()
        golden = (bundles.GoldenVector(indices=(), values=(), outputs=(0.5,)),)
        parts = {
            bundles.FEATURES_FILE: bundle_files[bundles.FEATURES_FILE],
            model_format.JOBLIB_FILE: pickled,
            bundles.GOLDEN_FILE: msgspec.json.encode(golden),
        }
        manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
        training = msgspec.structs.replace(manifest.training, library_versions=versions or {})
        manifest = msgspec.structs.replace(
            manifest,
            model=model_format.ModelFormat(kind="joblib", runs_code=True),
            parts={name: bundles.describe_part(content) for name, content in parts.items()},
            training=training,
        )
        files = {bundles.MANIFEST_FILE: manifest.to_json(), **parts}
        if key is not None:
            files[SIGNATURE_FILE] = sign_manifest(files[bundles.MANIFEST_FILE], key)
        folder = tmp_path / "bundles" / "hematocrit"
        folder.mkdir(parents=True)
        for name, content in {**files, **(change(files) if change else {})}.items():
            if content is not None:
                (folder / name).write_bytes(content)
        return tmp_path / "bundles"

    return make


def key_pair(seed):
    """Give a private and a public key as PEM, always the same ones."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


OURS, THEIRS = key_pair(1), key_pair(2)


# -- models that run code


def test_a_model_that_runs_code_is_loaded_where_it_is_allowed(write):
    models = BundleFolder(write(), allow_pickle=True)
    assert models.deployed() == {"hematocrit": None}
    assert RAN == ["code of the bundle ran"]  # The canary sings: were it loaded elsewhere, it would be heard.


def test_a_model_that_runs_code_is_not_loaded_where_nobody_allowed_it(write):
    models = BundleFolder(write())
    with pytest.raises(ModelUnavailable):
        models.bundle("hematocrit")
    assert "DEPLOYR_ALLOW_PICKLE=1" in models.deployed()["hematocrit"]
    assert RAN == []


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", [model_format.JOBLIB_FILE, bundles.FEATURES_FILE, bundles.GOLDEN_FILE])
@pytest.mark.parametrize(
    "spoil",
    [flipped, lambda c: c[:-1], lambda c: c + b"\0" * 1000, lambda _: b"", lambda _: None],
    ids=["flipped bit", "truncated", "longer", "zero bytes", "missing"],
)
def test_no_code_runs_when_any_file_is_not_as_promised(write, name, spoil):
    models = BundleFolder(write(change=lambda files: {name: spoil(files[name])}), allow_pickle=True)
    assert models.deployed()["hematocrit"].startswith(f"{name}: expected")
    assert RAN == []


def test_no_code_runs_when_the_manifest_calls_it_data(write):
    def call_it_data(files):
        return {bundles.MANIFEST_FILE: files[bundles.MANIFEST_FILE].replace(b'"runs_code":true', b'"runs_code":false')}

    models = BundleFolder(write(change=call_it_data))
    assert "expected runs_code to be true" in models.deployed()["hematocrit"]
    assert RAN == []


@pytest.mark.parametrize("library", ["scikit-learn", "numpy"])
def test_no_code_runs_under_another_version_than_it_was_trained_with(write, library):
    models = BundleFolder(write(versions={library: "0.1"}), allow_pickle=True)
    assert models.deployed()["hematocrit"] == (
        f"model.joblib: expected {library} 0.1, which it was trained with; {version(library)} is installed here"
    )
    assert RAN == []


def test_the_version_it_was_trained_with_is_accepted(write):
    versions = {library: version(library) for library in ("scikit-learn", "numpy")}
    assert BundleFolder(write(versions=versions), allow_pickle=True).deployed() == {"hematocrit": None}


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04K\x01", b"\x80\x04\x8c\x04nope\x8c\x01x\x93."])
def test_what_joblib_cannot_read_disables_the_model(write, content):
    reason = BundleFolder(write(model=content), allow_pickle=True).deployed()["hematocrit"]
    assert reason.startswith("model.joblib: expected an estimator")


def test_what_is_no_estimator_disables_the_model(write):
    reason = BundleFolder(write(model={"weights": [1.0]}), allow_pickle=True).deployed()["hematocrit"]
    assert reason == "model.joblib: expected an estimator with predict_proba or predict"


def test_serving_data_imports_nothing_that_could_run_code(bundles_folder):
    program = (
        "import sys; from pathlib import Path; from deployr_serve.adapters.models import BundleFolder\n"
        f"assert BundleFolder(Path({str(bundles_folder)!r})).deployed() == {{'anemia': None, 'hematocrit': None}}\n"
        "assert not {'joblib', 'sklearn', 'pandas', 'cryptography'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# -- signatures


def test_with_trusted_keys_a_bundle_signed_by_one_of_them_is_served(write):
    folder = write(key=OURS[0])
    models = BundleFolder(folder, allow_pickle=True, trusted_keys=(THEIRS[1], OURS[1]))
    assert models.bundle("hematocrit").signed_by == trusted_key(OURS[1]).key_id


@pytest.mark.parametrize("key", [None, THEIRS[0]], ids=["unsigned", "signed by another"])
def test_with_trusted_keys_any_other_bundle_is_disabled_and_no_code_runs(write, key):
    models = BundleFolder(write(key=key), allow_pickle=True, trusted_keys=(OURS[1],))
    assert models.deployed()["hematocrit"].startswith(f"{SIGNATURE_FILE}: expected a signature by a trusted key")
    assert RAN == []


def test_a_manifest_changed_after_it_was_signed_is_disabled_and_no_code_runs(write):
    def retouch(files):
        return {bundles.MANIFEST_FILE: files[bundles.MANIFEST_FILE].replace(b'"version":"1.0.0"', b'"version":"1.0.1"')}

    models = BundleFolder(write(key=OURS[0], change=retouch), allow_pickle=True, trusted_keys=(OURS[1],))
    assert "the manifest or the signature was changed" in models.deployed()["hematocrit"]
    assert RAN == []


def test_a_key_in_the_bundle_is_not_trusted(write):
    folder = write(key=THEIRS[0], change=lambda _: {"trusted.pem": THEIRS[1], "manifest.pub.pem": THEIRS[1]})
    assert BundleFolder(folder, allow_pickle=True, trusted_keys=(OURS[1],)).deployed()["hematocrit"] is not None
    assert RAN == []


@pytest.mark.parametrize("pem", [b"", b"nonsense", OURS[0]], ids=["empty", "nonsense", "a private key"])
def test_a_trusted_key_that_is_none_stops_the_app(tmp_path, pem):
    with pytest.raises(SettingsInvalid, match="trusted keys of bundles: expected a public Ed25519 key"):
        BundleFolder(tmp_path, trusted_keys=(pem,))


# -- files beside and beyond


def test_files_that_the_manifest_does_not_name_are_not_opened(bundles_folder):
    folder = bundles_folder / "hematocrit"
    (folder / "model.joblib").write_bytes(joblib_of(Half()))
    (folder / "notes.txt").write_text("seen by the committee")
    (folder / "report").mkdir()
    (folder / "unreadable").symlink_to("/nowhere")
    assert BundleFolder(bundles_folder, allow_pickle=True).deployed()["hematocrit"] is None
    assert RAN == []


def joblib_of(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


def test_a_file_far_too_large_is_refused_unread(bundles_folder):
    file = bundles_folder / "hematocrit" / model_format.MODEL_FILE
    with file.open("r+b") as sparse:
        sparse.truncate(10 * 2**30)  # 10 GiB of which no byte is on disk
    with pytest.raises(bundles.BundleInvalid, match=r"model.treelite: expected \d+ bytes, .* got 10737418240"):
        read_bundle(bundles_folder / "hematocrit")


def test_a_manifest_far_too_large_is_refused(bundles_folder):
    with (bundles_folder / "hematocrit" / bundles.MANIFEST_FILE).open("r+b") as sparse:
        sparse.truncate(10 * 2**30)
    with pytest.raises(bundles.BundleInvalid, match=r"manifest.json: expected at most 1000000 bytes"):
        read_bundle(bundles_folder / "hematocrit")
