"""Loads bundles from a folder: verified before anything in them is read, once, and held in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from deployr_core.bundle import MANIFEST_FILE, MODEL_ID, PARTS, Bundle, BundleInvalid, open_bundle
from deployr_serve.core.errors import ModelUnavailable, UnknownModel

_log = logging.getLogger(__name__)


class BundleFolder:
    """The models of a folder: each sub-folder is a bundle, and its name the model id.

    A bundle that may not be used disables its own model, with a reason that readiness shows, and no other.
    """

    def __init__(self, folder: Path) -> None:
        self._bundles: dict[str, Bundle] = {}
        self._unavailable: dict[str, str] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if MODEL_ID.match(path.name) and path.is_dir():
                self._load(path)

    def bundle(self, model_id: str) -> Bundle:
        """Give the model's bundle; see `deployr_serve.core.ports.Models`."""
        if model_id in self._bundles:
            return self._bundles[model_id]
        if model_id in self._unavailable:
            raise ModelUnavailable("expected a bundle that is what its manifest says")
        raise UnknownModel("expected the id of a model that is deployed here")

    def deployed(self) -> Mapping[str, str | None]:
        """Give each deployed model id with None, or with the reason why it is not available."""
        return {**dict.fromkeys(self._bundles), **self._unavailable}

    def _load(self, path: Path) -> None:
        try:
            bundle = read_bundle(path)
            if bundle.manifest.model_id != path.name:
                raise BundleInvalid(f"{MANIFEST_FILE}: expected model_id {path.name!r}, the name of its folder")
        except BundleInvalid as error:
            # The message names files and digests of the bundle; there is nothing of a patient in it.
            self._unavailable[path.name] = str(error)
            _log.error("model %s is not available: %s", path.name, error)
        else:
            self._bundles[path.name] = bundle


def read_bundle(folder: Path) -> Bundle:
    """Read and verify the bundle in a folder.

    Raises:
        BundleInvalid: a file is missing or is not what the manifest says.
    """
    try:
        manifest = (folder / MANIFEST_FILE).read_bytes()
        parts = {name: (folder / name).read_bytes() for name in PARTS}
    except OSError as error:
        name = Path(error.filename).name if error.filename else MANIFEST_FILE
        raise BundleInvalid(f"{name}: expected in the bundle, but it cannot be read") from error
    return open_bundle(manifest, parts)
