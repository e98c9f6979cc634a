"""The shelf: a folder of runs, from which bundles are laid into the folder that models are served from.

``RUNS/MODEL/RUN/`` holds ``run.json``, ``bundle/`` and perhaps ``comparison.json``. Where a model is deployed from
here, ``BUNDLES/MODEL/`` holds a folder for each bundle that was, by its digest, and ``deployed.json``, which names the
one that serves. To swap is to replace that one small file: it is whole at every instant, on shared drives too, and
what served before lies beside it for the way back.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import msgspec

from deployr_core.bundle import (
    FEATURES_FILE,
    MANIFEST_FILE,
    MODEL_ID,
    BundleInvalid,
    Manifest,
    parse_manifest,
    sha256_hex,
)
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.model_format import MODEL_FILE
from deployr_core.registry.comparison import Comparison, ComparisonInvalid, parse_comparison
from deployr_core.registry.journal import Head
from deployr_core.registry.roles import Reason, RegistryRefused
from deployr_core.registry.run import (
    BUNDLE_FOLDER,
    COMPARISON_FILE,
    CONFIG_FILE,
    FIGURES_FILE,
    REPORT_FILE,
    RUN_FILE,
    RUN_SIGNATURE_FILE,
    Run,
    RunInvalid,
    parse_run,
)
from deployr_core.signing import SIGNATURE_FILE, SignatureInvalid, TrustedKey, trusted_key, verify_manifest
from deployr_serve.adapters.bundle_files import DEPLOYED_FILE, Deployed, Files, bundle_place, read_files
from deployr_serve.adapters.models import why_not_taken
from deployr_serve.core.registry_deeds import ShelvedRun

_KEPT = (RUN_FILE, RUN_SIGNATURE_FILE, CONFIG_FILE, REPORT_FILE, FIGURES_FILE, COMPARISON_FILE)
"""What of a run is kept beside its bundle. Its snapshot holds patients' rows, and stays with who trained."""
_LARGEST = 20_000_000
"""In bytes; no honest record is larger."""
TREES_FILE = "model.trees.json"
"""The model's trees as treelite writes them out, for runtimes that do not read its checkpoints."""


class RunShelf:
    """See `deployr_serve.core.registry.Shelf` for what each method promises.

    Args:
        runs: the folder of runs.
        bundles: the folder that models are served from.
        trusted_keys: public Ed25519 keys of the site, PEM.
        refused: tries bundles out, as at the start of the app; see `deployr_serve.adapters.proving`.
        allow_pickle: as serving has it.
        unfetchable: names what of a declaration cannot be fetched here.
        needs: what is asked of the EMR for a declaration.
    """

    def __init__(
        self,
        runs: Path,
        *,
        bundles: Path,
        trusted_keys: Sequence[bytes],
        refused: Callable[[Mapping[str, Path]], Mapping[str, str]] = lambda _: {},
        allow_pickle: bool = False,
        unfetchable: Callable[[FeatureSpec], tuple[str, ...]] = lambda _: (),
        needs: Callable[[FeatureSpec], Hashable] = lambda spec: spec,
    ) -> None:
        self._runs = runs
        self._bundles = bundles
        self._keys: tuple[TrustedKey, ...] = tuple(trusted_key(pem) for pem in trusted_keys)
        self._refused = refused
        self._allow_pickle = allow_pickle
        self._unfetchable = unfetchable
        self._needs = needs

    async def run(self, model_id: str, run_id: str) -> ShelvedRun:
        """Give a run."""
        return await asyncio.to_thread(self._run, model_id, run_id)

    async def prepare(self, run: ShelvedRun) -> str:
        """Lay its bundle beside the one that serves, and try it out."""
        return await asyncio.to_thread(self._prepare, run)

    async def put_in_place(self, run: ShelvedRun, head: Head) -> None:
        """Let it serve."""
        await asyncio.to_thread(self._put_in_place, run, head)

    async def export(self, run: ShelvedRun, to: str) -> None:
        """Write the bundle, and its trees as JSON where it has any; `deployr_core.bundle` says what each file is."""
        await asyncio.to_thread(self._export, run, Path(to))

    def take(self, folder: Path) -> None:
        """Lay a run that was trained elsewhere onto the shelf, whole or not at all.

        Of one that lies there already, a newer comparison and signatures are taken.

        Raises:
            RegistryRefused: it is not a run, or another one lies under its name.
        """
        record = _read(folder / RUN_FILE)
        run = read_run(folder)
        at = self._runs / run.model_id / run.run_id
        if not at.is_dir():
            at.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=at.parent, prefix=".taking-") as beside:
                whole = Path(beside, run.run_id)
                (whole / BUNDLE_FOLDER).mkdir(parents=True)
                for name in _KEPT:
                    if (folder / name).is_file():
                        shutil.copyfile(folder / name, whole / name)
                _write_bundle(_files(folder / BUNDLE_FOLDER), whole / BUNDLE_FOLDER)
                _named(whole, at)
        elif _read(at / RUN_FILE) != record:
            raise RegistryRefused(
                Reason.NOT_AS_REGISTERED, f"{at}: expected the same run.json as in {folder}; nothing was changed"
            )
        for name in (COMPARISON_FILE, RUN_SIGNATURE_FILE, f"{BUNDLE_FOLDER}/{SIGNATURE_FILE}"):
            if at.resolve() != folder.resolve() and (folder / name).is_file():
                _replace(at / name, (folder / name).read_bytes())

    def _run(self, model_id: str, run_id: str) -> ShelvedRun:
        if not (MODEL_ID.match(model_id) and MODEL_ID.match(run_id)):
            raise RegistryRefused(Reason.UNKNOWN_RUN, "expected the ids of a model and of a run of it")
        folder = self._runs / model_id / run_id
        if not (folder / RUN_FILE).is_file():
            raise RegistryRefused(Reason.UNKNOWN_RUN, f"expected {run_id} on the shelf of {model_id}")
        record = _read(folder / RUN_FILE)
        run = _parsed(record, run_id)
        files = _files(folder / BUNDLE_FOLDER)
        manifest = parse_manifest(files.manifest_json)
        if (run.model_id, run.run_id, run.bundle_sha256) != (model_id, run_id, files.digest):
            raise RegistryRefused(Reason.NOT_USABLE, f"{run_id}: expected its own run.json beside its own bundle")
        if manifest.model_id != model_id:
            raise RegistryRefused(Reason.NOT_USABLE, f"{run_id}: expected a bundle of {model_id}")
        signed_by, unsigned = self._signer(files.manifest_json, files.signature)
        by_file = folder / RUN_SIGNATURE_FILE
        signature = _read(by_file) if by_file.is_file() else None
        run_signed_by, run_unsigned = self._signer(record, signature, name=RUN_SIGNATURE_FILE, of="run's record")
        return ShelvedRun(
            run=run,
            run_sha256=sha256_hex(record),
            manifest=manifest,
            signed_by=signed_by,
            unsigned=unsigned,
            run_signed_by=run_signed_by,
            run_unsigned=run_unsigned,
            comparison=_comparison(folder / COMPARISON_FILE),
        )

    def _signer(self, content: bytes, signature: bytes | None, **said: str) -> tuple[str | None, str]:
        if not self._keys:
            return None, "expected DEPLOYR_TRUSTED_KEYS, the public keys whose signature this site trusts"
        try:
            return verify_manifest(content, signature, self._keys, **said), ""
        except SignatureInvalid as error:
            return None, f"{error}; `deployr bundle sign` signs it, by who holds the key"

    def _prepare(self, run: ShelvedRun) -> str:
        model_id, digest = run.run.model_id, run.run.bundle_sha256
        at = self._bundles / model_id / digest
        shelved = self._runs / model_id / run.run.run_id / BUNDLE_FOLDER
        try:
            if at.is_dir():
                _sign_anew(at, _files(shelved))
            else:
                at.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=at.parent, prefix=".taking-") as beside:
                    whole = Path(beside, digest)
                    whole.mkdir()
                    _write_bundle(_files(shelved), whole)
                    _named(whole, at)
            # What lies there may be from long ago; it is what will serve.
            files = read_files(at, trusted_keys=self._keys)
        except BundleInvalid as error:
            raise RegistryRefused(Reason.NOT_USABLE, f"{at}: {error}") from error
        if files.digest != digest:
            raise RegistryRefused(Reason.NOT_USABLE, f"{at}: expected the bundle that its name says")
        if run.manifest.model.runs_code and not self._allow_pickle:
            raise RegistryRefused(
                Reason.NOT_USABLE, f"{run.run.run_id}: loading it runs code; DEPLOYR_ALLOW_PICKLE=1 would allow it"
            )
        spec = parse_feature_spec(files.parts[FEATURES_FILE])
        if missing := self._unfetchable(spec):
            said = f"{run.run.run_id}: expected features that can be fetched here, got {', '.join(missing)}"
            raise RegistryRefused(Reason.NOT_USABLE, said)
        to_try = {digest: at} if run.manifest.model.can_be_tried(allow_pickle=self._allow_pickle) else {}
        for reason in self._refused(to_try).values():
            raise RegistryRefused(Reason.NOT_USABLE, f"{run.run.run_id}: {reason}")
        return self._why_it_waits(model_id, run.manifest, spec)

    def _why_it_waits(self, model_id: str, manifest: Manifest, spec: FeatureSpec) -> str:
        try:
            serving = read_files(bundle_place(self._bundles / model_id))
            was = parse_manifest(serving.manifest_json), parse_feature_spec(serving.parts[FEATURES_FILE])
        except BundleInvalid:
            return "a running app takes no model that was not there when it started; start it again"
        reason = why_not_taken(was, (manifest, spec), needs=self._needs)
        return f"a running app does not take it: {reason}" if reason else ""

    def _put_in_place(self, run: ShelvedRun, head: Head) -> None:
        marker = Deployed(bundle_sha256=run.run.bundle_sha256, run_id=run.run.run_id, journal=head)
        _replace(self._bundles / run.run.model_id / DEPLOYED_FILE, msgspec.json.encode(marker, order="sorted"))

    def _export(self, run: ShelvedRun, to: Path) -> None:
        files = _files(self._runs / run.run.model_id / run.run.run_id / BUNDLE_FOLDER)
        try:
            to.mkdir(parents=True)
            _write_bundle(files, to)
            if run.manifest.model.file_name == MODEL_FILE:
                import treelite

                trees = treelite.Model.deserialize_bytes(files.parts[MODEL_FILE]).dump_as_json(pretty_print=False)
                (to / TREES_FILE).write_text(trees, encoding="utf-8")
        except OSError as error:
            said = f"{to}: expected a folder that is not there yet, and can be written ({error.strerror})"
            raise RegistryRefused(Reason.NOT_USABLE, said) from error


def read_run(folder: Path) -> Run:
    """Give the record of the run in a folder.

    Raises:
        RegistryRefused: there is none, or it is not what a run's must be.
    """
    return _parsed(_read(folder / RUN_FILE), str(folder))


def _files(folder: Path) -> Files:
    try:
        return read_files(folder)
    except BundleInvalid as error:
        raise RegistryRefused(Reason.NOT_USABLE, f"{folder}: {error}") from error


def _write_bundle(files: Files, folder: Path) -> None:
    """Write a bundle's files and nothing else; they are on the disk when this returns."""
    signature = {} if files.signature is None else {SIGNATURE_FILE: files.signature}
    for name, content in {MANIFEST_FILE: files.manifest_json, **files.parts, **signature}.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _sign_anew(at: Path, files: Files) -> None:
    """Give the bundle that lies there the signature that the run has now: the site's key may have been exchanged."""
    signature, file = files.signature, at / SIGNATURE_FILE
    if signature is not None and not (file.is_file() and file.read_bytes() == signature):
        _replace(file, signature)


def _named(whole: Path, at: Path) -> None:
    """Give a folder its name, unless somebody was first: its name follows from what is in it."""
    try:
        whole.rename(at)
    except OSError:
        if not at.is_dir():
            raise


def _replace(file: Path, content: bytes) -> None:
    """Put a file in the place of another one, in one step."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".taking-", delete=False) as beside:
        try:
            beside.write(content)
            beside.flush()
            os.fsync(beside.fileno())
            beside.close()
            # Another user may be the one who serves; there is nothing secret in it.
            Path(beside.name).chmod(0o644)
            Path(beside.name).replace(file)
        except BaseException:
            Path(beside.name).unlink(missing_ok=True)
            raise


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise RegistryRefused(Reason.NOT_USABLE, f"{file}: expected at most {_LARGEST} bytes")
        return file.read_bytes()
    except OSError as error:
        raise RegistryRefused(Reason.UNKNOWN_RUN, f"{file}: expected the record of a run ({error.strerror})") from error


def _parsed(record: bytes, name: str) -> Run:
    try:
        return parse_run(record)
    except RunInvalid as error:
        raise RegistryRefused(Reason.NOT_USABLE, f"{name}: {error}") from error


def _comparison(file: Path) -> Comparison | None:
    if not file.is_file():
        return None
    try:
        return parse_comparison(_read(file))
    except ComparisonInvalid as error:
        raise RegistryRefused(Reason.NOT_USABLE, f"{file}: {error}") from error
