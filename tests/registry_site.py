"""A site whose registry has something to show: a champion, its challenger and shadow, a first run, a forged journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from deployr_core.bundle import Estimate
from deployr_core.registry.comparison import Better, Compared, Comparison, Group, Grouping, Model, Rows
from deployr_core.registry.journal import Action, entry_bytes
from deployr_core.registry.roles import RegistryRefused, Wish
from deployr_core.registry.run import COMPARISON_FILE, Run
from deployr_serve.adapters.run_shelf import RunShelf
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.audit import NotAudited
from deployr_serve.core.registry import Registry
from tests.registry_parts import ADA, CALL, DEV, GRACE, PUBLIC, deed, journal_of, people_file, write_run
from tests.unit.deployr_dash.made_up import NOW, packets

BEGAN = NOW - timedelta(days=60)


class Days:
    """A clock that goes on a day with each look."""

    def __init__(self) -> None:
        self._at = BEGAN

    def now(self):
        """Give the next day."""
        self._at += timedelta(days=1)
        return self._at

    def monotonic(self) -> float:
        """Give seconds."""
        return 0.0


class RegistrySite:
    """The site. ``settings``: its file; ``champion``, ``challenger``, ``first``: runs; ``frames``: an extract's."""

    def __init__(self, folder: Path, bundle_files: Mapping[str, bytes]) -> None:
        self.folder, self._bundle_files = folder, bundle_files
        self._shelf = RunShelf(folder / "runs", bundles=folder / "bundles", trusted_keys=(PUBLIC,))
        self.settings = folder / "local.settings.json"
        self.values = {
            "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
            "DEPLOYR_BUNDLES": str(folder / "bundles"),
            "DEPLOYR_BUNDLE_ARCHIVE": str(folder / "runs"),
            "DEPLOYR_TRUSTED_KEYS": str(folder / "site.pub.pem"),
            "DEPLOYR_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "DEPLOYR_REGISTRY_PEOPLE": people_file(folder),
            "DEPLOYR_ID_KEY": "k" * 32,
        }

    async def write(self) -> None:
        """Write everything: settings, store, runs, journals."""
        (self.folder / "bundles").mkdir(exist_ok=True)
        (self.folder / "site.pub.pem").write_bytes(PUBLIC)
        self.settings.write_text(json.dumps({"IsEncrypted": False, "Values": self.values}))
        store = SqliteStore(self.folder / "store.sqlite")
        await store.init()
        self._registry = Registry(records=store, shelf=self._shelf, clock=Days(), audit=NotAudited())
        former = await self._deployed("1.0.0", why="The first one; the committee of 3 February agreed.")
        self.champion = await self._deployed("1.1.0", why="More trees; as good, and faster.", beside=former)
        rejected = await self._registered("1.1.5")
        await self._do(Action.REJECTED, rejected, GRACE, why="Trained on the wrong months.")
        self.challenger = await self._registered("1.2.0", beside=self.champion)
        await self._refused(Action.APPROVED, self.challenger, ADA, why="I trust it.")
        self.first = await self._registered("0.9.0", model_id="potassium", signed=False)
        for number, entry in enumerate(forged(), start=1):
            await store.create_record("journal.magnesium", f"{number:08d}", entry_bytes(entry), now=BEGAN)
        await store.create_record("journal-head", "magnesium", msgspec.json.encode(forged()[-1].head), now=BEGAN)
        await store.aclose()

    def frames(self, n: int = 900) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Give an extract's packets: of the champion, and of the challenger in its shadow."""
        served = packets(n, trial=False).assign(bundle_sha256=self.champion.bundle_sha256, version="1.1.0")
        return served, self.shadow_of(served)

    def shadow_of(self, served: pd.DataFrame) -> pd.DataFrame:
        """Give the packets of the challenger that followed the champion's, a little less sure of everything."""
        noise = np.random.default_rng(7).normal(0, 0.05, len(served))
        return served.assign(
            packet_id="s" + served["packet_id"].str[1:],
            shadow_of=served["packet_id"],
            model_id=self.challenger.run_id,
            version="1.2.0",
            bundle_sha256=self.challenger.bundle_sha256,
            channel="shadow",
            mode="silent",
            score=(served["score"] + noise).clip(0.0, 1.0),
        )

    async def _registered(self, version, *, beside=None, **changes) -> Run:
        run = write_run(self.folder / "trained", self._bundle_files, version=version, **changes)
        place = self.folder / "trained" / run.run_id
        if beside is not None:
            (place / COMPARISON_FILE).write_bytes(compared(run, beside).to_json())
        self._shelf.take(place)
        await self._do(Action.REGISTERED, run, DEV)
        if beside is not None:
            await self._do(Action.COMPARED, run, DEV)
        return run

    async def _deployed(self, version, *, why, beside=None) -> Run:
        run = await self._registered(version, beside=beside)
        await self._do(Action.APPROVED, run, GRACE, why=why, despite=True)
        await self._do(Action.DEPLOYED, run, DEV)
        return run

    async def _do(self, action, run, by, **said) -> None:
        await self._registry.do(Wish(action=action, run_id=run.run_id, **said), model_id=run.model_id, by=by, call=CALL)

    async def _refused(self, action, run, by, **said) -> None:
        try:
            await self._do(action, run, by, **said)
        except RegistryRefused:
            return
        raise AssertionError


def forged():
    """Give a journal in which somebody has changed who approved, long after."""
    first, second, third = journal_of(
        deed(Action.REGISTERED, "magnesium-1", at=BEGAN),
        deed(Action.APPROVED, "magnesium-1", who="grace", role="approver", at=BEGAN, why="good"),
        deed(Action.DEPLOYED, "magnesium-1", at=BEGAN),
        model_id="magnesium",
    )
    return first, msgspec.structs.replace(second, who="ada"), third


def compared(run: Run, champion: Run) -> Comparison:
    """Give a comparison on held-out rows, in which the challenger is better in some things and worse for some."""

    def figure(name, difference, *, better=Better.HIGHER, value=0.8):
        middle, low, high = difference
        return Compared(
            name=name,
            better=better,
            champion=Estimate(value=value, low=value - 0.04, high=value + 0.04),
            challenger=Estimate(value=value + middle, low=value + middle - 0.04, high=value + middle + 0.04),
            difference=Estimate(value=middle, low=low, high=high),
        )

    def group(name, difference):
        return Group(name=name, rows=210, patients=104, auroc=figure("AUROC", difference))

    few = "under 10 patients with the outcome"
    return Comparison(
        rows_are=Rows.HELD_OUT,
        champion=Model(name=champion.run_id, version="1.1.0", bundle_sha256=champion.bundle_sha256),
        challenger=Model(name=run.run_id, version="1.2.0", bundle_sha256=run.bundle_sha256),
        outcome="the hematocrit lies outside its own reference range",
        rows=442,
        patients=218,
        positives=131,
        excluded_patients=12,
        threshold=0.6,
        resamples=1000,
        figures=(
            figure("AUROC", (0.024, 0.006, 0.043)),
            figure("average precision", (0.018, -0.012, 0.049), value=0.62),
            figure("Brier score", (-0.011, -0.02, -0.003), better=Better.LOWER, value=0.16),
            figure("log loss", (-0.02, -0.051, 0.012), better=Better.LOWER, value=0.49),
            figure("net benefit at 0.6", (0.004, -0.006, 0.014), value=0.1),
        ),
        delong=None,
        groupings=(
            Grouping(
                name="sex",
                groups=(group("female", (0.031, 0.004, 0.058)), group("male", (0.015, -0.013, 0.044))),
                gap=figure("gap", (0.01, -0.02, 0.04), better=Better.LOWER, value=0.03),
            ),
            Grouping(
                name="age",
                groups=(
                    group("18 to 64", (0.02, -0.004, 0.045)),
                    group("65 and over", (-0.034, -0.06, -0.009)),
                    Group(
                        name="under 18",
                        rows=None,
                        patients=None,
                        auroc=Compared(
                            name="AUROC", better=Better.HIGHER, champion=few, challenger=few, difference=few
                        ),
                    ),
                ),
                gap=figure("gap", (0.02, -0.02, 0.06), better=Better.LOWER, value=0.05),
            ),
        ),
    )
