"""`deployr replay`: stored packets scored again, one of them or a whole period, and what differs, if anything does."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell, bar
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import with_store
from deployr_core.bundle import Bundle, BundleInvalid
from deployr_core.packet import InferencePacket, Scored
from deployr_serve.adapters.bundle_archive import BundleArchive
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.proving import installed_versions
from deployr_serve.adapters.yaml_folder import read_folder
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.facts_kept import FactsUnreadable, facts_of
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import InferenceStore
from deployr_serve.core.replay import (
    Replayed,
    Verdict,
    changed_libraries,
    replay,
    replay_facts,
    unknown,
    why_not_scored,
)
from deployr_serve.facts_bootstrap import Vault, open_vault
from deployr_serve.predictor_bootstrap import reach_of
from deployr_serve.settings import Settings, read_settings

_PAGE = 500
EXIT_CODES = {Verdict.SAME: 0, Verdict.DIFFERS: 1, Verdict.UNKNOWN: 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """Which packets: those that were asked for from ``since`` on and before ``until``, of one model or of all."""

    since: datetime
    until: datetime | None = None
    model: str | None = None


@dataclass(kw_only=True, slots=True)
class Summary:
    """What became of a period. ``odd``: each packet that is not the same, except those that were never scored."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    odd: list[Replayed] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, packet: InferencePacket, replayed: Replayed) -> None:
        never_scored = replayed.verdict is Verdict.UNKNOWN and not isinstance(packet.outcome, Scored)
        counts = self.counts.setdefault(replayed.model_id, Counter())
        counts["not-scored" if never_scored else replayed.verdict.value] += 1
        if replayed.verdict is not Verdict.SAME and not never_scored:
            self.odd.append(replayed)

    @property
    def packets(self) -> int:
        return sum(sum(counts.values()) for counts in self.counts.values())

    @property
    def exit_code(self) -> int:
        """Say 1 if any differs, 2 if of any that was scored nothing can be told, else 0."""
        return min((EXIT_CODES[each.verdict] for each in self.odd), default=0)


class Replays:
    """Scores packets again with the bundles, policies and libraries that are here."""

    def __init__(self, settings: Settings, *, vault: Vault | None = None) -> None:
        folders = [settings.bundles, *([settings.bundle_archive] if settings.bundle_archive else [])]
        self._archive = BundleArchive(
            *folders,
            allow_pickle=settings.allow_pickle,
            trusted_keys=tuple(file.read_bytes() for file in settings.trusted_keys),
            reach=reach_of(settings.predictors, clock=SystemClock()),
        )
        self._manifests = self._archive.manifests()
        policies, _ = read_folder(settings.deployments, Policy, setting="DEPLOYR_DEPLOYMENTS", each="model")
        self._policies = {policy.sha256: policy for policy in policies.values()}
        self._installed = installed_versions()
        self._vault = vault

    def models(self) -> tuple[str, ...]:
        """Name every model that there is or was."""
        return tuple(sorted({manifest.model_id for manifest in self._manifests.values()}))

    def from_features(self, packet: InferencePacket) -> Replayed:
        """Score the stored features again."""
        why = why_not_scored(packet.outcome)
        if why is not None:
            return unknown(packet, why)
        bundle = self._bundle(packet)
        if isinstance(bundle, Replayed):
            return bundle
        decision = packet.outcome.decision if isinstance(packet.outcome, Scored) else None
        policy = None if decision is None else self._policies.get(decision.policy_sha256)
        return replay(packet, bundle, installed=self._installed, policy=policy)

    async def from_facts(self, packet: InferencePacket, *, now: datetime) -> Replayed:
        """Compute the features again from the facts that were kept, then score what is stored again, too."""
        if self._vault is None:
            raise CommandFailed("--from-facts: expected DEPLOYR_FACTS_VAULT, where this site keeps facts")
        if packet.facts_sha256 is None:
            return unknown(packet, "no facts were kept for the packet")
        bundle = self._bundle(packet)
        if isinstance(bundle, Replayed):
            return bundle
        try:
            content = await self._vault.read(packet.packet_id, packet.facts_sha256, now=now)
            if content is None:
                return unknown(packet, "the facts that were kept have expired, or were erased")
            fetched = facts_of(content)
        except FactsUnreadable as error:
            return unknown(packet, f"the facts cannot be read: {error}")
        except StoreUnavailable as error:
            raise CommandFailed(f"DEPLOYR_FACTS_VAULT: {error}") from error
        again = replay_facts(packet, bundle, fetched, installed=self._installed)
        if again.verdict is Verdict.SAME and isinstance(packet.outcome, Scored):
            return self.from_features(packet)
        return again

    def _bundle(self, packet: InferencePacket) -> Bundle | Replayed:
        model = packet.model
        manifest = self._manifests.get(model.bundle_sha256)
        if manifest is None:
            others = sorted(
                f"version {each.version} of digest {digest[:12]}"
                for digest, each in self._manifests.items()
                if each.model_id == model.model_id
            )
            held = f"here are {', '.join(others)}" if others else "there is no bundle of this model here"
            why = f"the bundle of digest {model.bundle_sha256[:12]} is missing, version {model.version}; {held}"
            return unknown(packet, f"{why}; put it into DEPLOYR_BUNDLE_ARCHIVE")
        try:
            return self._archive.bundle(model.bundle_sha256)
        except BundleInvalid as error:
            why = f"the bundle of digest {model.bundle_sha256[:12]} cannot be used here: {error}"
            return unknown(packet, why, beside=changed_libraries(manifest, self._installed))


def run_replay(
    settings_file: Path | None,
    *,
    packet_id: str | None,
    period: Period | None,
    from_facts: bool,
    json_file: Path | None,
    console: Console | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Replay one packet or a period, print what became of it, and give the exit code.

    Args:
        settings_file: a local.settings.json; the environment wins over it. None takes the environment alone.
        packet_id: of a stored packet; or
        period: which packets.
        from_facts: whether features are computed again, too, from the facts that were kept.
        json_file: gets what is printed, as JSON.
        console: where it is printed; None takes standard output.
        environ: the environment, for tests; None takes it.

    Returns:
        0: the same to the bit. 1: something differs. 2: nothing can be told.

    Raises:
        CommandFailed: there is no such packet, or the store or the vault does not answer.
    """
    if (packet_id is None) == (period is None):
        raise CommandFailed("expected a packet's id, or --since and a period")
    console = console or Console()
    settings = read_settings(settings_values(settings_file, os.environ if environ is None else environ))
    vault = None
    if from_facts and settings.facts is not None:
        vault = open_vault(settings.facts, deadline_s=settings.deadline_s)
    replays = Replays(settings, vault=vault)

    async def one(store: InferenceStore) -> Replayed:
        stored = await store.read(packet_id or "")
        if stored is None:
            raise CommandFailed("expected the id of a packet in DEPLOYR_STORE; answers carry it as X-Packet-Id")
        return await _replayed(replays, stored.packet, from_facts=from_facts)

    async def whole(store: InferenceStore, period: Period) -> Summary:
        with bar(console, "Scoring again") as tell:
            return await replay_period(store, replays, period, tell, from_facts=from_facts)

    async def closing(store: InferenceStore) -> Replayed | Summary:
        try:
            return await (one(store) if period is None else whole(store, period))
        finally:
            if vault is not None:
                await vault.aclose()

    done = with_store(settings, closing)
    if isinstance(done, Replayed):
        _show(done, console)
        content, code = asdict(done), EXIT_CODES[done.verdict]
    else:
        _show_summary(done, console)
        content, code = _as_json(done), done.exit_code
    if json_file is not None:
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return code


async def replay_period(
    store: InferenceStore, replays: Replays, period: Period, tell: Tell, *, from_facts: bool = False
) -> Summary:
    """Replay page by page, so that no more than one page is in memory."""
    summary, started, done = Summary(), time.perf_counter(), 0
    models = replays.models() if period.model is None else (period.model,)
    async for packet in _packets(store, models, period):
        summary.add(packet, await _replayed(replays, packet, from_facts=from_facts))
        done += 1
        if done % 100 == 0:
            tell(done, done)
    tell(done, done)
    summary.seconds = time.perf_counter() - started
    return summary


async def _packets(store: InferenceStore, models: tuple[str, ...], period: Period) -> AsyncIterator[InferencePacket]:
    for model in models:
        after = None
        while page := await store.packets(
            model_id=model, after=after, limit=_PAGE, since=period.since, until=period.until
        ):
            for packet in page:
                yield packet
            after = page[-1].packet_id


async def _replayed(replays: Replays, packet: InferencePacket, *, from_facts: bool) -> Replayed:
    if from_facts:
        return await replays.from_facts(packet, now=SystemClock().now())
    return replays.from_features(packet)


def _show(one: Replayed, console: Console) -> None:
    console.print(Text(f"{one.packet_id}  {one.model_id} {one.version}", style="bold"), soft_wrap=True)
    match one.verdict:
        case Verdict.SAME:
            console.print(Text("Same: every number is equal to the bit.", style="green"))
        case Verdict.DIFFERS:
            console.print(Text("Differs:", style="bold red"))
        case Verdict.UNKNOWN:
            console.print(Text(f"Cannot tell: {one.why_unknown}.", style="yellow"), soft_wrap=True)
    for line in one.differences:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for name in one.features:
        console.print(Text(f"    {name}"), soft_wrap=True)
    for line in one.beside:
        console.print(Text(f"  beside: {line}", style="dim"), soft_wrap=True)


def _show_summary(summary: Summary, console: Console) -> None:
    columns = ("same", "differs", "cannot-tell", "not-scored")
    table = Table("model", *columns, box=None)
    for model, counts in sorted(summary.counts.items()):
        table.add_row(model, *(f"{counts[name]:,}" for name in columns))
    console.print(table)
    pace = summary.packets / summary.seconds if summary.seconds else 0.0
    console.print(f"{summary.packets:,} packets in {summary.seconds:.1f} s, {pace:,.0f} a second", highlight=False)
    for what, how_many in _told(summary).most_common(20):
        console.print(Text(f"  {how_many:,} × {what}"), soft_wrap=True)
    for one in summary.odd[:10]:
        console.print(Text(f"    {one.packet_id} {one.verdict}", style="dim"), soft_wrap=True)


def _told(summary: Summary) -> Counter[str]:
    """Count what was found; a packet may show several things."""
    return Counter(line for one in summary.odd for line in (*one.differences, *filter(None, (one.why_unknown,))))


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "packets": summary.packets,
        "seconds": round(summary.seconds, 3),
        "models": {model: dict(counts) for model, counts in sorted(summary.counts.items())},
        "found": dict(_told(summary)),
        "odd": [asdict(one) for one in summary.odd],
    }
