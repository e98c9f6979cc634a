"""The models of a folder: verified before anything in them is loaded, once, and held in memory.

While the app runs, a new version of a model may be put in the place of the old one: it is checked as at the start,
beside the requests, and takes over at one instant; whoever has begun with the old one ends with it. A new version that
is not fit to take over is not taken, and the old one goes on. The one that it replaced stays in memory, so that a way
back takes no longer than noticing that it is wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployr_core.bundle import BUNDLE_FILES, FEATURES_FILE, MANIFEST_FILE, MODEL_ID, Bundle, BundleInvalid, Manifest
from deployr_core.documents import DOCUMENTS_FILE
from deployr_core.elsewhere import Reach
from deployr_core.features import FeatureSpec
from deployr_core.signing import KeyUnusable, trusted_key
from deployr_serve.adapters.bundle_files import (
    DEPLOYED_FILE,
    bundle_place,
    read_bundle,
    read_files,
    read_manifest,
    read_marker,
)
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid, UnknownModel
from deployr_serve.core.ports import Clock

LOOKS_AGAIN_S = 2.0
"""How often at most the folder is looked at for new versions."""

LOOKER = "new versions"
"""What the thread that looks is called."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """The models as they stand at one instant; replaced as a whole. ``stamps``: of the manifests as they were seen.

    ``earlier``: the one that each model's was before it, where it has changed since the start.
    """

    bundles: Mapping[str, Bundle]
    unavailable: Mapping[str, str]
    stamps: Mapping[str, Hashable]
    earlier: Mapping[str, Bundle] = field(default_factory=dict)


class BundleFolder:
    """The models of a folder: each sub-folder is a bundle, and its name the model id.

    Or it holds several bundles, and a marker that says which of them serves; see `bundle_files.bundle_place`.

    A bundle that may not be used disables its own model, with a reason that readiness shows, and no other.

    Args:
        folder: where the bundles are.
        allow_pickle: loads models that run code, too; without it they are disabled.
        trusted_keys: public Ed25519 keys as PEM bytes; with any, a bundle not signed by one of them is disabled.
        unfetchable: names what of a declaration the fact source cannot fetch; a bundle that needs any of it is
            disabled: its features would be trained and never seen.
        refused: tries bundles out, and gives by digest what is wrong with those that must not be loaded here; see
            `deployr_serve.adapters.proving`. What has passed is opened in this process, too, golden vectors included.
            A model that answers elsewhere can crash nobody here, and is not tried out.
        reach: the way to models that answer elsewhere; without it they are disabled.
        needs: what is asked of the EMR for a declaration. Scopes, prefetch templates and policies were derived from it
            when the app started: a new version with other needs is not taken while it runs.
        clock: tells when to look for new versions; None never looks.
        beside: runs work that nobody waits for; a thread, if not told otherwise.

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
        refused: Callable[[Mapping[str, Path]], Mapping[str, str]] = lambda _: {},
        reach: Reach | None = None,
        needs: Callable[[FeatureSpec], Hashable] = lambda spec: spec,
        clock: Clock | None = None,
        beside: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._folder = folder
        self._allow_pickle = allow_pickle
        self._unfetchable = unfetchable
        self._refused = refused
        self._reach = reach
        self._needs = needs
        self._clock = clock
        self._beside = beside or _in_a_thread
        self._looking = False
        self._next_look = 0.0 if clock is None else clock.monotonic() + LOOKS_AGAIN_S
        try:
            self._keys = tuple(trusted_key(pem) for pem in trusted_keys)
        except KeyUnusable as error:
            raise SettingsInvalid(f"trusted keys of bundles: {error}") from None
        stamps = {name: _stamp(folder / name) for name in model_folders(folder)}
        loaded = self._loaded(tuple(stamps))
        unavailable = {name: told for name, told in loaded.items() if isinstance(told, str)}
        for name, reason in unavailable.items():
            # The message names files and digests of the bundle; there is nothing of a patient in it.
            _log.error("model %s is not available: %s", name, reason)
        bundles = {name: told for name, told in loaded.items() if isinstance(told, Bundle)}
        self._held = _Held(bundles=bundles, unavailable=unavailable, stamps=stamps)

    def bundle(self, model_id: str) -> Bundle:
        """Give the model's bundle; see `deployr_serve.core.ports.Models`."""
        self._look_again()
        held = self._held
        if model_id in held.bundles:
            return held.bundles[model_id]
        if model_id in held.unavailable:
            raise ModelUnavailable("expected a bundle that is what its manifest says")
        raise UnknownModel("expected the id of a model that is deployed here")

    def deployed(self) -> Mapping[str, str | None]:
        """Give each deployed model id with None, or with the reason why it is not available."""
        held = self._held
        return {**dict.fromkeys(held.bundles), **held.unavailable}

    def _look_again(self) -> None:
        if self._clock is None or self._looking or (now := self._clock.monotonic()) < self._next_look:
            return
        self._next_look, self._looking = now + LOOKS_AGAIN_S, True
        self._beside(self._take_new_versions)

    def _take_new_versions(self) -> None:
        try:
            held = self._held
            stamps = {name: _stamp(self._folder / name) for name in held.bundles}
            # A folder that is gone is one that is being replaced; to stop a model there is the kill switch.
            changed = [name for name, stamp in stamps.items() if stamp is not None and stamp != held.stamps[name]]
            back = {name: held.earlier[name] for name in changed if self._is_way_back(name, held)}
            whole = [name for name in changed if name not in back and self._is_whole(name)]
            if not whole and not back:
                return
            taken: dict[str, Bundle] = {}
            for name, told in {**back, **self._loaded(whole)}.items():
                reason = told if isinstance(told, str) else self._why_not_taken(held.bundles[name], told)
                if isinstance(told, Bundle) and reason is None:
                    taken[name] = told
                    told_by = (name, told.manifest.version, told.digest[:12])
                    _log.warning("model %s: version %s, digest %s, takes over", *told_by)
                else:
                    _log.error("model %s: a new version was not taken, the old one goes on: %s", name, reason)
            self._held = _Held(
                bundles={**held.bundles, **taken},
                unavailable=held.unavailable,
                stamps={**held.stamps, **{name: stamps[name] for name in (*whole, *back)}},
                earlier={**held.earlier, **{name: held.bundles[name] for name in taken}},
            )
        finally:
            self._looking = False

    def _is_way_back(self, name: str, held: _Held) -> bool:
        """Say if the marker names the very bundle that was there before: it is in memory, verified and loaded."""
        earlier = held.earlier.get(name)
        try:
            marker = read_marker(self._folder / name)
        except BundleInvalid:
            return False
        return marker is not None and earlier is not None and marker.bundle_sha256 == earlier.digest

    def _is_whole(self, name: str) -> bool:
        """Say if the files are what the manifest says; those that are still being copied are looked at again."""
        try:
            read_files(bundle_place(self._folder / name), trusted_keys=self._keys)
        except BundleInvalid as error:
            _log.warning("model %s: a new version is not whole yet: %s", name, error)
            return False
        return True

    def _why_not_taken(self, old: Bundle, new: Bundle) -> str | None:
        return why_not_taken((old.manifest, old.spec), (new.manifest, new.spec), needs=self._needs)

    def _loaded(self, names: Sequence[str]) -> dict[str, Bundle | str]:
        """Give each model's bundle, or the reason why there is none; all are tried out before the first is loaded."""
        digests: dict[str, str] = {}
        loaded: dict[str, Bundle | str] = {}
        to_try: dict[str, Path] = {}
        for name in names:
            try:
                place = bundle_place(self._folder / name)
                manifest, digests[name] = read_manifest(place, trusted_keys=self._keys)
            except BundleInvalid as error:
                loaded[name] = str(error)
            else:
                if manifest.model_id != name:
                    loaded[name] = f"{MANIFEST_FILE}: expected model_id {name!r}, the name of its folder"
                elif manifest.model.can_be_tried(allow_pickle=self._allow_pickle):
                    to_try[digests[name]] = place
        refused = self._refused(to_try)
        for name in names:
            if name not in loaded:
                digest = digests[name]
                loaded[name] = refused[digest] if digest in refused else self._opened(name, digest)
        return {name: loaded[name] for name in names}

    def _opened(self, name: str, digest: str) -> Bundle | str:
        try:
            place = bundle_place(self._folder / name)
            bundle = read_bundle(place, allow_pickle=self._allow_pickle, trusted_keys=self._keys, reach=self._reach)
        except BundleInvalid as error:
            return str(error)
        if bundle.digest != digest:
            return "expected the bundle to stay as it was while it was loaded"
        if missing := self._unfetchable(bundle.spec):
            return f"{FEATURES_FILE}: expected features that can be fetched here, got {', '.join(missing)}"
        return bundle


def why_not_taken(
    was: tuple[Manifest, FeatureSpec], comes: tuple[Manifest, FeatureSpec], *, needs: Callable[[FeatureSpec], Hashable]
) -> str | None:
    """Say why a new version may not take over while the app runs; None if it may.

    Args:
        was: manifest and declaration of what serves.
        comes: of what is to serve.
        needs: what is asked of the EMR for a declaration.
    """
    (old, old_spec), (new, new_spec) = was, comes
    if (old.task.outputs, old.score_name) != (new.task.outputs, new.score_name):
        return "expected the same outputs and score name; start the app again"
    if needs(old_spec) != needs(new_spec) or (DOCUMENTS_FILE in old.parts) != (DOCUMENTS_FILE in new.parts):
        return "expected to ask the EMR for the same; start the app again"
    return None


def model_folders(folder: Path) -> tuple[str, ...]:
    """Name the sub-folders that hold a bundle, or what is left of one.

    A folder with nothing of a bundle in it, such as training's reports, is none that broke.
    """
    return tuple(
        path.name
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if MODEL_ID.match(path.name)
        and path.is_dir()
        and any((path / name).exists() for name in (DEPLOYED_FILE, *BUNDLE_FILES))
    )


def _stamp(folder: Path) -> Hashable:
    """Give what changes when a bundle is replaced; None where there is neither marker nor manifest."""
    for name in (DEPLOYED_FILE, MANIFEST_FILE):
        with suppress(OSError):
            stat = (folder / name).stat()
            return stat.st_mtime_ns, stat.st_size, stat.st_ino
    return None


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=LOOKER, daemon=True).start()
