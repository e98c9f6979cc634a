"""Reads a bundle's folder: signature, sizes and digests first, then the model. Other files in it are never opened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deployr_core.bundle import (
    MANIFEST_FILE,
    MANIFEST_LIMIT,
    Bundle,
    BundleInvalid,
    Manifest,
    check_part,
    check_part_size,
    checked_manifest,
    open_bundle,
    sha256_hex,
)
from deployr_core.elsewhere import Reach
from deployr_core.registry.journal import Head
from deployr_core.signing import SIGNATURE_FILE, TrustedKey

DEPLOYED_FILE = "deployed.json"
"""What the marker is called that says which of several bundles in a model's folder serves."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Deployed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The marker: the digest of the bundle that serves, by which its folder is called, and who says so.

    It is no proof of anything: what it names is verified like any bundle. ``journal``: how far the model's journal had
    come by then.
    """

    bundle_sha256: str
    run_id: str
    journal: Head

    def __post_init__(self) -> None:
        if not _DIGEST.match(self.bundle_sha256):
            raise ValueError("expected a SHA-256 in hex")


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """A bundle's files, every digest and the signature checked; nothing of them has been deserialised."""

    digest: str
    manifest_json: bytes
    signature: bytes | None
    parts: Mapping[str, bytes]


def read_marker(folder: Path) -> Deployed | None:
    """Give the marker of a model's folder; None where there is none, and the folder itself is the bundle.

    Raises:
        BundleInvalid: it cannot be read.
    """
    if not (folder / DEPLOYED_FILE).exists():
        return None
    try:
        return msgspec.json.decode(_read(folder, DEPLOYED_FILE, limit=MANIFEST_LIMIT), type=Deployed)
    except msgspec.MsgspecError as error:
        raise BundleInvalid(f"{DEPLOYED_FILE}: {error}") from None


def bundle_place(folder: Path) -> Path:
    """Give where the bundle that serves lies: the folder itself, or the one in it that its marker names.

    Raises:
        BundleInvalid: the marker cannot be read.
    """
    marker = read_marker(folder)
    return folder if marker is None else folder / marker.bundle_sha256


def read_bundle(
    folder: Path,
    *,
    allow_pickle: bool = False,
    trusted_keys: Sequence[TrustedKey] = (),
    reach: Reach | None = None,
) -> Bundle:
    """Read and verify the bundle in a folder.

    Args:
        folder: the bundle's own.
        allow_pickle: loads a model that runs code, once its digest and signature are right.
        trusted_keys: with any, the bundle must be signed by one of them.
        reach: the way to a model that answers elsewhere; None refuses such.

    Raises:
        BundleInvalid: a file is missing or is not what the manifest says, the signature is not one of a trusted key,
            or the model runs code and may not.
    """
    files = read_files(folder, trusted_keys=trusted_keys)
    return open_files(files, allow_pickle=allow_pickle, trusted_keys=trusted_keys, reach=reach)


def read_manifest(folder: Path, *, trusted_keys: Sequence[TrustedKey] = ()) -> tuple[Manifest, str]:
    """Give a bundle's manifest and digest, its signature checked; the other files are not looked at.

    Raises:
        BundleInvalid: there is no manifest, or no trusted key signed it.
    """
    manifest_json, signature = _signed_manifest(folder)
    manifest, _ = checked_manifest(manifest_json, signature=signature, trusted_keys=trusted_keys)
    return manifest, sha256_hex(manifest_json)


def read_files(folder: Path, *, trusted_keys: Sequence[TrustedKey] = ()) -> Files:
    """Read a bundle's files and check signature, sizes and digests; nothing of the model is looked at.

    Raises:
        BundleInvalid: a file is missing or is not what the manifest says, or no trusted key signed it.
    """
    manifest_json, signature = _signed_manifest(folder)
    manifest, _ = checked_manifest(manifest_json, signature=signature, trusted_keys=trusted_keys)
    parts = {}
    for name in manifest.part_names:
        check_part_size(manifest, name, _size(folder, name))
        parts[name] = _read(folder, name, limit=manifest.parts[name].size)
        check_part(manifest, name, parts[name])
    return Files(digest=sha256_hex(manifest_json), manifest_json=manifest_json, signature=signature, parts=parts)


def open_files(
    files: Files,
    *,
    allow_pickle: bool = False,
    trusted_keys: Sequence[TrustedKey] = (),
    reach: Reach | None = None,
) -> Bundle:
    """Open a bundle whose files were read; see `deployr_core.bundle.open_bundle`, which checks them once more.

    Raises:
        BundleInvalid: it is not as promised, or the model runs code and may not.
    """
    return open_bundle(
        files.manifest_json,
        files.parts,
        signature=files.signature,
        trusted_keys=trusted_keys,
        load_pickle=_load_pickle if allow_pickle else None,
        reach=reach,
    )


def _load_pickle(manifest: Manifest, content: bytes) -> object:
    from deployr_serve.adapters.pickled import load_estimator

    return load_estimator(manifest, content)


def _signed_manifest(folder: Path) -> tuple[bytes, bytes | None]:
    has_signature = (folder / SIGNATURE_FILE).exists()
    signature = _read(folder, SIGNATURE_FILE, limit=MANIFEST_LIMIT) if has_signature else None
    return _read(folder, MANIFEST_FILE, limit=MANIFEST_LIMIT), signature


def _size(folder: Path, name: str) -> int:
    try:
        return (folder / name).stat().st_size
    except OSError as error:
        raise _unreadable(name) from error


def _read(folder: Path, name: str, *, limit: int) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(name) from error
    if len(content) > limit:
        raise BundleInvalid(f"{name}: expected at most {limit} bytes")
    return content


def _unreadable(name: str) -> BundleInvalid:
    return BundleInvalid(f"{name}: expected in the bundle, but it cannot be read")
