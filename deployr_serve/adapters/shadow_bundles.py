"""The bundles of shadows: runs on the shelf that deployment files name, verified like any bundle, and tried out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, Bundle, BundleInvalid
from deployr_core.elsewhere import Reach
from deployr_core.features import FeatureSpec
from deployr_core.registry.run import BUNDLE_FOLDER
from deployr_core.signing import trusted_key
from deployr_serve.adapters.bundle_files import read_bundle, read_manifest
from deployr_serve.core.errors import ModelUnavailable, UnknownModel

_log = logging.getLogger(__name__)


class ShadowBundles:
    """See `deployr_serve.core.ports.Models`: shadows by the ids of their runs, loaded when the app starts.

    One that may not be used is unavailable, as its packets say; nothing else suffers from it.

    Args:
        runs: the shelf.
        wanted: by champion, the ids of its shadows' runs.
        trusted_keys: public Ed25519 keys as PEM bytes; with any, a bundle not signed by one of them is not used.
        allow_pickle: as serving has it.
        unfetchable: names what of a declaration cannot be fetched here.
        refused: tries bundles out; see `deployr_serve.adapters.proving`.
        reach: the way to models that answer elsewhere.
    """

    def __init__(
        self,
        runs: Path,
        wanted: Mapping[str, Sequence[str]],
        *,
        trusted_keys: Sequence[bytes] = (),
        allow_pickle: bool = False,
        unfetchable: Callable[[FeatureSpec], tuple[str, ...]] = lambda _: (),
        refused: Callable[[Mapping[str, Path]], Mapping[str, str]] = lambda _: {},
        reach: Reach | None = None,
    ) -> None:
        keys = tuple(map(trusted_key, trusted_keys))
        self._bundles: dict[str, Bundle] = {}
        self._unavailable: dict[str, str] = {}
        places = {run: (model, runs / model / run / BUNDLE_FOLDER) for model, ids in wanted.items() for run in ids}
        digests: dict[str, str] = {}
        to_try: dict[str, Path] = {}
        for run, (model, folder) in places.items():
            try:
                manifest, digest = read_manifest(folder, trusted_keys=keys)
            except BundleInvalid as error:
                self._unavailable[run] = str(error)
            else:
                digests[run] = digest
                if manifest.model_id != model:
                    self._unavailable[run] = f"{MANIFEST_FILE}: expected a bundle of {model}"
                elif manifest.model.can_be_tried(allow_pickle=allow_pickle):
                    to_try[digest] = folder
        found_bad = refused(to_try)
        for run in [run for run in places if run not in self._unavailable]:
            # Before it is loaded: what crashed Python in its trial would crash it here.
            if (reason := found_bad.get(digests[run])) is not None:
                self._unavailable[run] = reason
                continue
            try:
                bundle = read_bundle(places[run][1], allow_pickle=allow_pickle, trusted_keys=keys, reach=reach)
            except BundleInvalid as error:
                self._unavailable[run] = str(error)
                continue
            if missing := unfetchable(bundle.spec):
                found = ", ".join(missing)
                self._unavailable[run] = f"{FEATURES_FILE}: expected features that can be fetched here, got {found}"
            elif bundle.digest != digests[run]:
                self._unavailable[run] = f"{MANIFEST_FILE}: expected the bundle to stay as it was while it was loaded"
            else:
                self._bundles[run] = bundle
        for run, reason in self._unavailable.items():
            # The message names files and digests of the bundle; there is nothing of a patient in it.
            _log.error("shadow %s is not available: %s", run, reason)

    def bundle(self, model_id: str) -> Bundle:
        """Give the shadow's bundle."""
        if model_id in self._bundles:
            return self._bundles[model_id]
        if model_id in self._unavailable:
            raise ModelUnavailable("expected a bundle that is what its manifest says")
        raise UnknownModel("expected the id of a run that a deployment file names as a shadow")

    def deployed(self) -> Mapping[str, str | None]:
        """Give each shadow with None, or with the reason why it is not available."""
        return {**dict.fromkeys(self._bundles), **self._unavailable}
