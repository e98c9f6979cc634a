"""A trained bundle on disk: written whole or not at all, and opened as serving will open it before it counts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployr_core.bundle import (
    BUNDLE_FILES,
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
from deployr_core.registry.run import BUNDLE_FOLDER, RUN_FILE, RUN_SIGNATURE_FILE, RunInvalid, parse_run
from deployr_core.signing import SIGNATURE_FILE, TrustedKey, sign_manifest
from deployr_dev.models import load_pickle
from deployr_dev.trained import TrainedBundle

_OURS = {SIGNATURE_FILE, *BUNDLE_FILES}


class BundleExists(ValueError):
    """Another bundle, or something else, is already there; nothing was changed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleFiles:
    """A bundle's files, whole and with the right digests, nothing in them deserialised but the manifest.

    ``signature`` is None where there is none; ``signed_by`` where no trusted key was given. ``others`` names files in
    the folder that are no part of the bundle: they are never opened.
    """

    manifest: Manifest
    manifest_json: bytes = field(repr=False)
    parts: Mapping[str, bytes] = field(repr=False)
    signature: bytes | None = field(repr=False)
    signed_by: str | None
    others: tuple[str, ...]


def write_bundle(
    trained: TrainedBundle,
    folder: Path,
    *,
    replace: bool = False,
    allow_pickle: bool = False,
    private_key_pem: bytes | None = None,
) -> Bundle:
    """Write a bundle's files into ``folder`` and give the bundle as read back from there.

    The files are written beside it, opened and scored as serving will do it, and only then get their name: a crash
    or a bad bundle leaves nothing under ``folder``. Writing the bundle that is there already changes nothing.

    Args:
        trained: what to write.
        folder: the bundle's own folder; its parents are made if need be.
        replace: puts the bundle in the place of another one. Of anything that is not a bundle, never; a file in the
            folder that is no part of a bundle makes it something else.
        allow_pickle: lets a model through that runs code when it is loaded, here and wherever it is deployed.
        private_key_pem: signs the manifest.

    Raises:
        KeyUnusable: the private key is not an Ed25519 key.
        BundleExists: ``folder`` holds another bundle and ``replace`` is false, or holds something else.
        BundleInvalid: what was written cannot be opened, or does not give its golden scores.
    """
    files = {MANIFEST_FILE: trained.manifest.to_json(), **trained.parts}
    if private_key_pem is not None:
        files[SIGNATURE_FILE] = sign_manifest(files[MANIFEST_FILE], private_key_pem)
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else (folder,)):
        if not _is_bundle(folder):
            raise BundleExists(f"{folder}: expected a new folder or a bundle, but something else is there")
        if _holds(folder, files):
            return read_bundle(folder, allow_pickle=allow_pickle)
        if not replace:
            raise BundleExists(
                f"{folder}: another bundle is there; ask for it to be replaced, or choose another folder"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh = beside / "fresh"
        fresh.mkdir()
        for name, content in files.items():
            _write_durably(fresh / name, content)
        bundle = read_bundle(fresh, allow_pickle=allow_pickle)
        if folder.exists():
            folder.rename(beside / "before")
        fresh.rename(folder)
        _sync_folder(folder.parent)
    finally:
        _put_back(beside / "before", folder)
        shutil.rmtree(beside, ignore_errors=True)
    return bundle


def read_bundle(folder: Path, *, allow_pickle: bool = False, trusted_keys: Sequence[TrustedKey] = ()) -> Bundle:
    """Read a bundle and check all that it promises.

    Args:
        folder: the bundle's own.
        allow_pickle: loads a model that runs code, once its digest and signature are right.
        trusted_keys: with any, the bundle must be signed by one of them.

    Raises:
        BundleInvalid: a file is missing or not what the manifest says; the message names it.
    """
    files = read_files(folder, trusted_keys=trusted_keys)
    return open_bundle(
        files.manifest_json,
        files.parts,
        signature=files.signature,
        trusted_keys=trusted_keys,
        load_pickle=load_pickle if allow_pickle else None,
    )


def read_files(folder: Path, *, trusted_keys: Sequence[TrustedKey] = ()) -> BundleFiles:
    """Read a bundle's files and check signature, sizes and digests; no model is deserialised.

    Raises:
        BundleInvalid: a file is missing or not what the manifest says; the message names it.
    """
    manifest_json = _read(folder, MANIFEST_FILE, limit=MANIFEST_LIMIT)
    signed = (folder / SIGNATURE_FILE).exists()
    signature = _read(folder, SIGNATURE_FILE, limit=MANIFEST_LIMIT) if signed else None
    manifest, signed_by = checked_manifest(manifest_json, signature=signature, trusted_keys=trusted_keys)
    parts = {}
    for name in manifest.part_names:
        check_part_size(manifest, name, _size(folder, name))
        parts[name] = _read(folder, name, limit=manifest.parts[name].size)
        check_part(manifest, name, parts[name])
    known = {MANIFEST_FILE, SIGNATURE_FILE, *parts}
    return BundleFiles(
        manifest=manifest,
        manifest_json=manifest_json,
        parts=parts,
        signature=signature,
        signed_by=signed_by,
        others=tuple(sorted(path.name for path in folder.iterdir() if path.name not in known)),
    )


def sign_bundle(folder: Path, private_key_pem: bytes) -> Manifest:
    """Sign the bundle in a folder, whose digests must be right; an earlier signature is replaced.

    Raises:
        BundleInvalid: a file is missing or not what the manifest says; nothing was signed.
        KeyUnusable: the private key is not an Ed25519 key.
    """
    files = read_files(folder)
    _put(folder / SIGNATURE_FILE, sign_manifest(files.manifest_json, private_key_pem))
    return files.manifest


def sign_run(folder: Path, private_key_pem: bytes) -> bool:
    """Sign the record of the run whose bundle is in a folder; false where that folder is no run's.

    Raises:
        BundleInvalid: the record is damaged, or another bundle's; it was not signed.
        KeyUnusable: the private key is not an Ed25519 key.
    """
    folder = folder.resolve()
    record = folder.parent / RUN_FILE
    if folder.name != BUNDLE_FOLDER or not record.is_file():
        return False
    content = record.read_bytes()
    try:
        run = parse_run(content)
    except RunInvalid as error:
        raise BundleInvalid(f"{error}; it was not signed") from None
    if run.bundle_sha256 != sha256_hex(_read(folder, MANIFEST_FILE, limit=MANIFEST_LIMIT)):
        raise BundleInvalid(f"{record}: expected the record of this bundle's run, got another's; it was not signed")
    _put(record.with_name(RUN_SIGNATURE_FILE), sign_manifest(content, private_key_pem))
    return True


def _put(file: Path, content: bytes) -> None:
    """Put a file in the place of an earlier one: whole, and on the disk when this returns."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    _write_durably(beside, content)
    beside.replace(file)
    _sync_folder(file.parent)


def _size(folder: Path, name: str) -> int:
    try:
        return (folder / name).stat().st_size
    except OSError as error:
        raise _unreadable(folder / name, error) from None


def _read(folder: Path, name: str, *, limit: int) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(folder / name, error) from None
    if len(content) > limit:
        raise BundleInvalid(f"{name}: expected at most {limit} bytes")
    return content


def _unreadable(path: Path, error: OSError) -> BundleInvalid:
    return BundleInvalid(f"{path}: expected in the bundle, but it cannot be read ({error.strerror})")


def _is_bundle(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return MANIFEST_FILE in names and names <= _OURS


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    return {path.name for path in folder.iterdir()} == set(files) and all(
        (folder / name).read_bytes() == content for name, content in files.items()
    )


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_back(before: Path, folder: Path) -> None:
    """Undo the first half of a replacement whose second half failed."""
    if before.exists() and not folder.exists():
        before.rename(folder)
