"""What the tests of the registry share: runs as folders, the site's key, people, and deeds in a journal."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deployr_core import bundle as bundles
from deployr_core.registry.comparison import Better, Compared, Comparison, Model, Rows
from deployr_core.registry.journal import Action, Deed, chained
from deployr_core.registry.roles import Person, RegistryRefused, Role, Wish
from deployr_core.registry.run import (
    COMPARISON_FILE,
    RUN_FILE,
    RUN_SIGNATURE_FILE,
    DataSet,
    DeployType,
    Run,
    Sets,
    derive_run_id,
)
from deployr_core.signing import SIGNATURE_FILE, sign_manifest
from deployr_serve.adapters.bundle_files import bundle_place
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.run_shelf import RunShelf
from deployr_serve.core.registry import Registry
from deployr_serve.core.registry_deeds import Call
from deployr_serve.core.registry_journal import read_journal

AT = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
ADA = Person(name="ada", roles=frozenset({Role.DEVELOPER, Role.APPROVER}), aliases=frozenset({"adal"}))
GRACE = Person(name="grace", roles=frozenset({Role.APPROVER}))
DEV = Person(name="dev", roles=frozenset({Role.DEVELOPER}))
VIC = Person(name="vic", roles=frozenset({Role.VIEWER}))
CALL = Call(channel="test", correlation_id="c1")
PASSWORD = "correct horse battery"
KEY = Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def people_file(folder, **changes):
    """Write the file of people, each with a password; give its path."""
    people = [
        {"name": person.name, "roles": sorted(person.roles), "password": PASSWORD} for person in (ADA, GRACE, DEV, VIC)
    ]
    (folder / "people.json").write_text(json.dumps({"people": people, **changes}))
    return str(folder / "people.json")


def basic(name, password=PASSWORD):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def write_run(
    folder,
    bundle_files,
    *,
    version="1.1.0",
    trained_by="ada",
    deploy_type=DeployType.CLOUD,
    signed=True,
    beside=None,
    parts=None,
    **changes,
):
    """Write a run of this version of the bundle under ``folder``; give it.

    ``beside``: the champion that it was compared with, a run or None. ``parts``: other contents of the bundle's files.
    """
    files = {**bundle_files, **(parts or {})}
    manifest = bundles.parse_manifest(files.pop(bundles.MANIFEST_FILE))
    described = {name: bundles.describe_part(content) for name, content in files.items()}
    manifest = msgspec.structs.replace(manifest, version=version, parts=described, **changes)
    manifest_json = manifest.to_json()
    rows = DataSet(
        rows=8,
        patients=8,
        positives=4,
        rows_sha256="1" * 64,
        features_sha256="2" * 64,
        first=date(2014, 1, 1),
        last=date(2014, 12, 31),
    )
    said = {
        "config_sha256": "3" * 64,
        "sets": Sets(train=rows, validation=None, test=rows),
        "code_version": bundles.CodeVersion(package="1.0", sources_sha256="4" * 64),
        "bundle_sha256": bundles.sha256_hex(manifest_json),
    }
    run = Run(
        run_id=derive_run_id(manifest.model_id, **said),
        model_id=manifest.model_id,
        opened_at=AT,
        trained_by=trained_by,
        source="eicu-demo",
        deploy_type=deploy_type,
        test={"auroc": bundles.Estimate(value=0.75, low=0.5, high=1.0)},
        has_snapshot=False,
        **said,
    )
    at = folder / run.run_id
    (at / "bundle").mkdir(parents=True)
    (at / RUN_FILE).write_bytes(run.to_json())
    (at / "bundle" / bundles.MANIFEST_FILE).write_bytes(manifest_json)
    for name, content in files.items():
        (at / "bundle" / name).write_bytes(content)
    if signed:
        (at / "bundle" / SIGNATURE_FILE).write_bytes(sign_manifest(manifest_json, PRIVATE))
        (at / RUN_SIGNATURE_FILE).write_bytes(sign_manifest(run.to_json(), PRIVATE))
    if beside is not None:
        (at / COMPARISON_FILE).write_bytes(comparison_of(run, beside).to_json())
    return run


def comparison_of(run, champion):
    """Give a comparison of two runs that cannot be told apart."""
    estimate = bundles.Estimate(value=0.75, low=0.5, high=1.0)
    auroc = Compared(
        name="AUROC",
        better=Better.HIGHER,
        champion=estimate,
        challenger=estimate,
        difference=bundles.Estimate(value=0.0, low=-0.1, high=0.1),
    )
    return Comparison(
        rows_are=Rows.HELD_OUT,
        champion=Model(name=champion.run_id, version="1.1.0", bundle_sha256=champion.bundle_sha256),
        challenger=Model(name=run.run_id, version="1.2.0", bundle_sha256=run.bundle_sha256),
        outcome="hematocrit",
        rows=8,
        patients=8,
        positives=4,
        threshold=None,
        resamples=100,
        figures=(auroc,),
        delong=None,
        groupings=(),
    )


def deed(action, run_id="", *, who="dev", role="developer", at=AT, replaces=None, **said):
    """Give a deed about a run whose digests follow from its id."""
    if run_id:
        said = {"run_sha256": f"r-{run_id}", "bundle_sha256": f"b-{run_id}", "deploy_type": "cloud", **said}
    if action is Action.REGISTERED:
        said.setdefault("trained_by", "ada")
    return Deed(at=at, who=who, role=role, action=action, run_id=run_id, replaces=replaces, **said)


def journal_of(*deeds, model_id="hematocrit"):
    """Give the entries of a journal that says this."""
    entries = []
    for each in deeds:
        entries.append(chained(each, model_id=model_id, last=entries[-1] if entries else None))
    return tuple(entries)


class Site:
    """A registry on folders of its own: version 1.0.0 was laid in by hand, and runs are where `trained` puts them.

    ``tried``: the digests of the bundles that were tried out. ``audit``: also where it is written down.
    """

    def __init__(self, folder, bundle_files, clock, store=None):
        self.runs, self.bundles, self.trained_in = folder / "runs", folder / "bundles", folder / "trained"
        at = self.bundles / "hematocrit"
        at.mkdir(parents=True, exist_ok=True)
        for name, content in bundle_files.items():
            (at / name).write_bytes(content)
        self._bundle_files, self._clock, self.tried = bundle_files, clock, []
        self.store, self.audit = store or MemoryStore(), Records()
        self.registry = Registry(records=self.store, shelf=self.shelf_of(), clock=clock, audit=self.audit)

    @property
    def shelf(self):
        return self.registry.shelf

    def shelf_of(self, **options):
        return RunShelf(
            self.runs, **{"bundles": self.bundles, "trusted_keys": (PUBLIC,), "refused": self._try_out, **options}
        )

    def _try_out(self, digests):
        self.tried += digests
        return {}

    async def do(self, action, run=None, *, by, **said):
        wish = Wish(action=action, run_id="" if run is None else run.run_id, **said)
        return await self.registry.do(wish, model_id="hematocrit", by=by, call=CALL)

    async def why_not(self, action, run=None, *, by, **said):
        with pytest.raises(RegistryRefused) as raised:
            await self.do(action, run, by=by, **said)
        return raised.value.reason

    def trained(self, version="1.1.0", **changes):
        return write_run(self.trained_in, self._bundle_files, version=version, **changes)

    async def registered(self, version="1.1.0", **changes):
        run = self.trained(version, **changes)
        self.shelf.take(self.trained_in / run.run_id)
        await self.do(Action.REGISTERED, run, by=DEV)
        return run

    async def approved(self, version="1.1.0", **changes):
        run = await self.registered(version, **changes)
        await self.do(Action.APPROVED, run, by=GRACE, why="good", despite=True)
        return run

    async def deployed(self, version="1.1.0", **changes):
        run = await self.approved(version, **changes)
        await self.do(Action.DEPLOYED, run, by=DEV)
        return run

    async def standing(self):
        return (await read_journal(self.store, "hematocrit", now=self._clock.now())).standing

    async def entries(self):
        return (await read_journal(self.store, "hematocrit", now=self._clock.now())).entries

    def serving(self):
        place = bundle_place(self.bundles / "hematocrit")
        return bundles.parse_manifest((place / bundles.MANIFEST_FILE).read_bytes()).version


class Records:
    """Holds the audit's records as they come."""

    def __init__(self):
        self.all = []

    def record(self, record):
        self.all.append(record)
