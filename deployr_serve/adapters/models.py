"""Loads bundles from a folder: verified before anything in them is read, once, and held in memory.

Files that a manifest does not name are never opened, so that a note or a report may lie beside a bundle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deployr_core.bundle import (
    BUNDLE_FILES,
    FEATURES_FILE,
    MANIFEST_FILE,
    MANIFEST_LIMIT,
    MODEL_ID,
    Bundle,
    BundleInvalid,
    Manifest,
    check_part_size,
    checked_manifest,
    open_bundle,
)
from deployr_core.features import FeatureSpec
from deployr_core.signing import SIGNATURE_FILE, KeyUnusable, TrustedKey, trusted_key
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid, UnknownModel

_log = logging.getLogger(__name__)


class BundleFolder:
    """The models of a folder: each sub-folder is a bundle, and its name the model id.

    A bundle that may not be used disables its own model, with a reason that readiness shows, and no other.

    Args:
        folder: where the bundles are.
        allow_pickle: loads models that run code, too; without it they are disabled.
        trusted_keys: public Ed25519 keys as PEM bytes; with any, a bundle not signed by one of them is disabled.
        unfetchable: names what of a declaration the fact source cannot fetch; a bundle that needs any of it is
            disabled: its features would be trained and never seen.

    Raises:
        SettingsInvalid: a trusted key is not one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        allow_pickle: bool = False,
        trusted_keys: Sequence[bytes] = (),
        unfetchable: Callable[[FeatureSpec], tuple[str, ...]] = lambda _: (),
    ) -> None:
        self._allow_pickle = allow_pickle
        self._unfetchable = unfetchable
        try:
            self._keys = tuple(trusted_key(pem) for pem in trusted_keys)
        except KeyUnusable as error:
            raise SettingsInvalid(f"trusted keys of bundles: {error}") from None
        self._bundles: dict[str, Bundle] = {}
        self._unavailable: dict[str, str] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            # A folder with nothing of a bundle in it, such as training's reports, is none that broke.
            if MODEL_ID.match(path.name) and path.is_dir() and any((path / name).exists() for name in BUNDLE_FILES):
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
            bundle = read_bundle(path, allow_pickle=self._allow_pickle, trusted_keys=self._keys)
            if bundle.manifest.model_id != path.name:
                raise BundleInvalid(f"{MANIFEST_FILE}: expected model_id {path.name!r}, the name of its folder")
            if missing := self._unfetchable(bundle.spec):
                raise BundleInvalid(
                    f"{FEATURES_FILE}: expected features that can be fetched here, got {', '.join(missing)}"
                )
        except BundleInvalid as error:
            # The message names files and digests of the bundle; there is nothing of a patient in it.
            self._unavailable[path.name] = str(error)
            _log.error("model %s is not available: %s", path.name, error)
        else:
            self._bundles[path.name] = bundle


def read_bundle(folder: Path, *, allow_pickle: bool = False, trusted_keys: Sequence[TrustedKey] = ()) -> Bundle:
    """Read and verify the bundle in a folder.

    Args:
        folder: the bundle's own.
        allow_pickle: loads a model that runs code, once its digest and signature are right.
        trusted_keys: with any, the bundle must be signed by one of them.

    Raises:
        BundleInvalid: a file is missing or is not what the manifest says, the signature is not one of a trusted key,
            or the model runs code and may not.
    """
    manifest_json = _read(folder, MANIFEST_FILE, limit=MANIFEST_LIMIT)
    signature = _read(folder, SIGNATURE_FILE, limit=MANIFEST_LIMIT) if _has_signature(folder) else None
    manifest, _ = checked_manifest(manifest_json, signature=signature, trusted_keys=trusted_keys)
    parts = {}
    for name in manifest.part_names:
        check_part_size(manifest, name, _size(folder, name))
        parts[name] = _read(folder, name, limit=manifest.parts[name].size)
    return open_bundle(
        manifest_json,
        parts,
        signature=signature,
        trusted_keys=trusted_keys,
        load_pickle=_load_pickle if allow_pickle else None,
    )


def _load_pickle(manifest: Manifest, content: bytes) -> object:
    from deployr_serve.adapters.pickled import load_estimator

    return load_estimator(manifest, content)


def _has_signature(folder: Path) -> bool:
    return (folder / SIGNATURE_FILE).exists()


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
