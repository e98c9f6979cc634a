"""Bundles by their digest, of whichever version: what packets of the past were scored with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployr_core.bundle import MANIFEST_FILE, Bundle, BundleInvalid, Manifest
from deployr_core.elsewhere import Reach
from deployr_core.signing import trusted_key
from deployr_serve.adapters.bundle_files import read_bundle, read_manifest


class BundleArchive:
    """All bundles under some folders, however these are laid out; each is opened when it is first asked for.

    Args:
        folders: those that are there are looked through, with all that is in them.
        allow_pickle: opens models that run code, too.
        trusted_keys: public Ed25519 keys as PEM bytes; with any, only what one of them signed is found.
        reach: the way to models that answer elsewhere; without it they are not opened.
    """

    def __init__(
        self,
        *folders: Path,
        allow_pickle: bool = False,
        trusted_keys: Sequence[bytes] = (),
        reach: Reach | None = None,
    ) -> None:
        self._reach = reach
        self._allow_pickle = allow_pickle
        self._keys = tuple(trusted_key(pem) for pem in trusted_keys)
        self._folders: dict[str, Path] = {}
        self._manifests: dict[str, Manifest] = {}
        self._opened: dict[str, Bundle | BundleInvalid] = {}
        for file in sorted(file for folder in folders for file in folder.rglob(MANIFEST_FILE)):
            try:
                manifest, digest = read_manifest(file.parent, trusted_keys=self._keys)
            except BundleInvalid:
                continue
            self._folders[digest] = file.parent
            self._manifests[digest] = manifest

    def manifests(self) -> dict[str, Manifest]:
        """Give the manifest of each bundle by its digest."""
        return dict(self._manifests)

    def bundle(self, digest: str) -> Bundle:
        """Open the bundle of a digest that `manifests` gives, once.

        Raises:
            BundleInvalid: it may not be used here.
        """
        if digest not in self._opened:
            folder = self._folders[digest]
            try:
                self._opened[digest] = read_bundle(
                    folder, allow_pickle=self._allow_pickle, trusted_keys=self._keys, reach=self._reach
                )
            except BundleInvalid as error:
                self._opened[digest] = error
        opened = self._opened[digest]
        if isinstance(opened, BundleInvalid):
            raise opened
        return opened
