"""A case under way: the EMR that is scripted for it, and the apps that are built against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from deployr_serve.core.errors import SettingsInvalid
from tests.faults.bed.chart import chart_of
from tests.faults.bed.pki import Authority, Keyring
from tests.faults.bed.rows import Case, filled_in
from tests.faults.bed.upstream import BASE_PATH, Upstream


@dataclass(frozen=True, kw_only=True)
class Bed:
    """What a case runs on.

    ``callers``: what rows call who may ask, by name. ``said`` gives all that was logged or printed since it was last
    asked. ``stand_ins`` gives those of Azure, or skips where they are not installed.
    """

    app_of: Callable[..., Any]
    keyring: Keyring
    authority: Authority
    bundles_of: Callable[[Mapping[str, Any]], Path]
    names: tuple[str, ...]
    callers: Mapping[str, str]
    said: Callable[[], str]
    stand_ins: Callable[[], Any]


@dataclass
class Run:
    """One case under way; ``problems`` grows. ``reachable``: what may be connected to beside the EMR."""

    case: Case
    bed: Bed
    values: dict[str, str]
    vault: Vault
    upstreams: list[Upstream] = field(default_factory=list)
    apps: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    advanced_s: float = 0.0
    reachable: set[tuple[str, int]] = field(default_factory=set)

    def expect(self, claim: bool, problem: str) -> None:
        if not claim:
            self.problems.append(problem)

    @property
    def deadline_s(self) -> float:
        return float(self.case.settings.get("DEPLOYR_DEADLINE_S", "8"))


class Vault:
    """Stands for the vault's client: gives the newest version of the one secret, a key of the tests'."""

    def __init__(self, folder: Path, held: str | None) -> None:
        self._folder = folder
        self.held = held

    def get_secret(self, name: str, version: str | None = None) -> SimpleNamespace:
        value = (self._folder / f"{self.held}.pem").read_text()
        return SimpleNamespace(value=value, properties=SimpleNamespace(expires_on=None))


async def start(run: Run, stack: AsyncExitStack) -> set[tuple[str, int]]:
    """Start the EMR, or as many as there are apps, and build the apps; give the addresses that they may call."""
    case, bed, allowed = run.case, run.bed, set()
    settings_of_apps = [case.settings, *({**case.settings, **more} for more in case.apps)]
    for _ in settings_of_apps if case.own_upstream else [None]:
        upstream = Upstream(chart={}, rules=case.upstream, keys=bed.keyring.registered, values=run.values)
        tls = bed.authority.server(case.network) if case.network.startswith("tls") else None
        origin = await stack.enter_async_context(upstream.listening(tls=tls))
        if case.network == "closed":
            origin = await _closed_port()
        elif case.network == "no-name":
            origin = f"http://emr.invalid:{urlsplit(origin).port}"
        run.values |= {"origin": origin, "base": origin + BASE_PATH}
        upstream.chart = chart_of(case.chart, run.values)
        run.upstreams.append(upstream)
        allowed.add((urlsplit(origin).hostname or "", urlsplit(origin).port or 0))
        settings_of = settings_of_apps if not case.own_upstream else [settings_of_apps[len(run.upstreams) - 1]]
        for settings in settings_of:
            _build(run, origin, filled_in(settings, run.values))
    return allowed


def _build(run: Run, origin: str, settings: Mapping[str, str]) -> None:
    smart = {
        "DEPLOYR_EMR_CLIENT_ID": "client-1",
        "DEPLOYR_EMR_KEY_FILE": str(run.bed.keyring.folder / "ec1.pem"),
        "DEPLOYR_EMR_KEY_ID": "ec1",
        "DEPLOYR_EMR_KEY_ALGORITHM": "ES384",
    }
    bundles = str(run.bed.bundles_of(run.case.manifest))
    given = {"DEPLOYR_STORE": "memory", "DEPLOYR_BUNDLES": bundles, **smart, **settings}
    given = {name: value for name, value in given.items() if value != "absent"}
    [expected, *_] = run.case.asked[0].expected
    try:
        run.apps.append(run.bed.app_of(origin, **given))
    except SettingsInvalid as error:
        run.expect(expected.answer == "START", "did not start")
        run.expect((expected.setting or "DEPLOYR_") in str(error), f"expected {expected.setting} in: {error}")
        run.expect("BEGIN" not in str(error), "the message holds a key")


async def _closed_port() -> str:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"
