"""A trained bundle on disk: written whole or not at all, and opened as serving will open it before it counts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deployr_core.bundle import MANIFEST_FILE, PARTS, Bundle, BundleInvalid, open_bundle
from deployr_dev.training import TrainedBundle


class BundleExists(ValueError):
    """Another bundle, or something else, is already there; nothing was changed."""


def write_bundle(trained: TrainedBundle, folder: Path, *, replace: bool = False) -> Bundle:
    """Write a bundle's files into ``folder`` and give the bundle as read back from there.

    The files are written beside it, opened and scored as serving will do it, and only then get their name: a crash
    or a bad bundle leaves nothing under ``folder``. Writing the bundle that is there already changes nothing.

    Args:
        trained: what to write.
        folder: the bundle's own folder; its parents are made if need be.
        replace: puts the bundle in the place of another one. Of anything that is not a bundle, never.

    Raises:
        BundleExists: ``folder`` holds another bundle and ``replace`` is false, or holds something else.
        BundleInvalid: what was written cannot be opened, or does not give its golden scores.
    """
    files = {MANIFEST_FILE: trained.manifest.to_json(), **trained.parts}
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else (folder,)):
        if not _is_bundle(folder):
            raise BundleExists(f"{folder}: expected a new folder or a bundle, but something else is there")
        if _holds(folder, files):
            return read_bundle(folder)
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
        bundle = read_bundle(fresh)
        if folder.exists():
            folder.rename(beside / "before")
        fresh.rename(folder)
        _sync_folder(folder.parent)
    finally:
        _put_back(beside / "before", folder)
        shutil.rmtree(beside, ignore_errors=True)
    return bundle


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and check all that it promises.

    Raises:
        BundleInvalid: a file is missing or not what the manifest says; the message names it.
    """
    manifest = _read(folder, MANIFEST_FILE)
    return open_bundle(manifest, {name: _read(folder, name) for name in PARTS})


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleInvalid(f"{folder / name}: cannot be read ({error.strerror})") from None


def _is_bundle(folder: Path) -> bool:
    return folder.is_dir() and {path.name for path in folder.iterdir()} == {MANIFEST_FILE, *PARTS}


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    return all((folder / name).read_bytes() == content for name, content in files.items())


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
