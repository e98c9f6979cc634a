"""Bundles of the past are found by digest, wherever they lie, and trusted as those of today."""

from __future__ import annotations

import msgspec
import pytest

from deployr_core import bundle as bundles
from deployr_core.model_format import MODEL_FILE
from deployr_core.signing import SIGNATURE_FILE, sign_manifest
from deployr_serve.adapters.bundle_archive import BundleArchive


@pytest.fixture
def put(tmp_path, bundle_files):
    """Give a function that puts a version into a folder, and gives its digest."""

    def make(place, *, version="1.0.0", key=None, spoil=None):
        manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
        content = msgspec.structs.replace(manifest, version=version).to_json()
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for name, each in {**bundle_files, bundles.MANIFEST_FILE: content}.items():
            if name != spoil:
                (folder / name).write_bytes(each)
        if key is not None:
            (folder / SIGNATURE_FILE).write_bytes(sign_manifest(content, key))
        return bundles.sha256_hex(content)

    return make


def test_versions_are_found_in_folders_of_any_name_and_depth(put, tmp_path):
    old, new = put("archive/2015/spring/b", version="1.0.0"), put("bundles/hematocrit", version="2.0.0")
    archive = BundleArchive(tmp_path / "bundles", tmp_path / "archive", tmp_path / "nowhere")
    assert {digest: manifest.version for digest, manifest in archive.manifests().items()} == {
        old: "1.0.0",
        new: "2.0.0",
    }
    assert archive.bundle(old).digest == old
    assert archive.bundle(old) is archive.bundle(old)


def test_one_that_no_longer_holds_what_it_promised_is_named_each_time(put, tmp_path):
    digest = put("archive/a", spoil=MODEL_FILE)
    archive = BundleArchive(tmp_path / "archive")
    for _ in range(2):
        with pytest.raises(bundles.BundleInvalid, match=r"model\.treelite: expected in the bundle"):
            archive.bundle(digest)


def test_with_trusted_keys_only_what_they_signed_is_there(put, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    put("archive/unsigned")
    signed = put("archive/signed", version="1.1.0", key=private)
    archive = BundleArchive(tmp_path / "archive", trusted_keys=(public,))
    assert set(archive.manifests()) == {signed}
    assert archive.bundle(signed).signed_by is not None
