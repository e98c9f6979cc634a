"""`deployr send-test`: what a stored packet looks like on one way out, printed; and sent, if that is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from rich.console import Console
from rich.text import Text

from deployr_cli.audited import who, write_down
from deployr_cli.doctor.decide.writes import is_production
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import with_store
from deployr_core.packet import InferencePacket, Mode, Scored
from deployr_core.packet_ids import derive_delivery_id
from deployr_serve.adapters.http import Request, Response, Transport
from deployr_serve.bootstrap import Application, build
from deployr_serve.core.audit import Act, Ending
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Output
from deployr_serve.outputs.file_drop import render_csv
from deployr_serve.outputs_bootstrap import chosen_of
from deployr_serve.outputs_settings import KNOWN
from deployr_serve.settings import Profile, Settings, read_settings
from deployr_serve.store_settings import InMemory

_NAMING_A_PERSON = frozenset({"PatientID", "EntityID", "ContactID"})
"""Members and parameters of a vendor's writes whose value names a patient or a contact, by an id of any type."""
_HIDDEN = "•••"
_OF_AGES = timedelta(days=3650)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """What would be sent. ``body`` is decoded where it is JSON."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str]
    body: Any = field(repr=False)


def run_send_test(
    settings_file: Path | None,
    *,
    packet_id: str,
    output: str,
    send: bool,
    environment: str | None,
    show_identifiers: bool,
    console: Console | None = None,
    environ: Mapping[str, str] | None = None,
) -> bool:
    """Print what one stored packet looks like on one way out, and send it if asked; True if nothing was refused.

    Args:
        settings_file: a local.settings.json; the environment wins over it. None takes the environment alone.
        packet_id: of a scored packet in the configured store.
        output: the way out, configured in DEPLOYR_OUTPUTS or not.
        send: whether it is sent, under the id of the real delivery: what has arrived already is not written twice.
        environment: the environment's name again; sending in production needs it.
        show_identifiers: whether ids of the patient, the encounter and the order are printed as they are.
        console: where it is printed; None takes standard output.
        environ: the environment, for tests; None takes it.

    Raises:
        CommandFailed: there is no such packet or output, or it must not be sent.
        SettingsInvalid: the settings do not work.
    """
    if output not in KNOWN:
        raise CommandFailed(f"--output: expected one of {', '.join(sorted(KNOWN))}")
    console = console or Console()
    settings = read_settings(settings_values(settings_file, os.environ if environ is None else environ))
    # Beside the configured ones, which deployment files may name.
    others = [each for each in chosen_of(settings.outputs, vendor_base=settings.vendor_base) if each[0] != output]
    settings = replace(settings, outputs=replace(settings.outputs, chosen=(*others, (output,))))
    packet = _packet(settings, packet_id)
    rehearsed, refusal = asyncio.run(_rehearsal(settings, packet, output))
    for one in rehearsed:
        _show(one if show_identifiers else _masked(one, packet), console)
    if refusal is not None:
        console.print(Text(f"Refused: {refusal}", style="bold red"))
        return False
    if not send:
        console.print(Text("Nothing was sent. Add --send to send it.", style="bold"))
        return True
    _insist_on_leave(settings, packet, environment)
    refusal = asyncio.run(_sent(settings, packet, output))
    write_down(
        settings,
        Act.SEND_TEST,
        by=who(None),
        said="sent" if refusal is None else "refused",
        ending=Ending.SUCCESS if refusal is None else Ending.MINOR,
        patient_hash=packet.patient_hash,
        packet_id=packet.packet_id,
        model_id=packet.model.model_id,
        details={"output": output},
    )
    if refusal is not None:
        console.print(Text(f"Not taken: {refusal}", style="bold red"))
        return False
    console.print(Text(f"Sent, and taken by {output}.", style="bold green"))
    return True


def _packet(settings: Settings, packet_id: str) -> InferencePacket:
    stored = with_store(settings, lambda store: store.read(packet_id))
    if stored is None:
        raise CommandFailed("--packet: expected the id of a packet in DEPLOYR_STORE; answers carry it as X-Packet-Id")
    if not isinstance(stored.packet.outcome, Scored):
        raise CommandFailed("--packet: expected one that was scored")
    return stored.packet


class _Rehearsal:
    """Lets through what only reads, so that patients are looked up as they would be, and keeps every write."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.kept: list[Rehearsed] = []

    async def send(self, request: Request) -> Response:
        if request.repeatable or request.form is not None:
            return await self._inner.send(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        self.kept.append(
            Rehearsed(method=request.method, url=request.url, headers=headers, body=_decoded(request.body or b""))
        )
        return Response(status=201, content_type="", body=b"")


async def _rehearsal(
    settings: Settings, packet: InferencePacket, output: str
) -> tuple[tuple[Rehearsed, ...], str | None]:
    """Give what would be sent, and why it would be refused, if it would."""
    made: list[_Rehearsal] = []

    def over(network: Transport) -> Transport:
        made.append(_Rehearsal(network))
        return made[0]

    # Not in the real store, where it would stand as sent; and an old packet is good enough to look at.
    harmless = replace(settings, store=InMemory(), outputs=replace(settings.outputs, expires_after=_OF_AGES))
    application = build(harmless, over=over)
    try:
        bundle = application.services.models.bundle(packet.model.model_id)
        delivery_id = derive_delivery_id(packet.packet_id, output)
        if output == "file-drop":
            policy = application.services.policies.of(packet.model.model_id)
            text = render_csv(packet, bundle.manifest, policy=policy, delivery_id=delivery_id).decode()
            return (Rehearsed(method="FILE", url=f"{delivery_id}.csv", headers={}, body=text),), None
        await _way_out(application, output).send(packet, bundle, delivery_id=delivery_id)
    except ServeError as error:
        return tuple(made[0].kept), f"{error.reason}: {error}"
    finally:
        await application.aclose()
    return tuple(made[0].kept), None


async def _sent(settings: Settings, packet: InferencePacket, output: str) -> str | None:
    """Send it as the app would, guards included; give why it was not taken, if it was not."""
    application = build(settings)
    try:
        model_id = packet.model.model_id
        digest = packet.model.bundle_sha256
        if (reason := await application.services.switches.why_nothing_is_sent(model_id, digest)) is not None:
            return reason
        way_out = _way_out(application, output)
        delivery_id = derive_delivery_id(packet.packet_id, output)
        await way_out.send(packet, application.services.models.bundle(model_id), delivery_id=delivery_id)
    except ServeError as error:
        return f"{error.reason}: {error}"
    finally:
        await application.aclose()
    return None


def _way_out(application: Application, name: str) -> Output:
    return next(output for output in application.services.outputs if output.name == name)


def _insist_on_leave(settings: Settings, packet: InferencePacket, environment: str | None) -> None:
    is_live = is_production(settings.environment, is_prod_profile=settings.profile is Profile.PROD)
    if environment is not None and environment != settings.environment:
        raise CommandFailed("--environment: expected the very name that DEPLOYR_ENVIRONMENT has")
    if environment is None and is_live:
        raise CommandFailed("--send: this is a production environment; repeat its name, with --environment")
    decision = packet.outcome.decision if isinstance(packet.outcome, Scored) else None
    if decision is None:
        return
    hidden = decision.mode is Mode.TRIAL and not decision.advise
    if hidden or decision.mode in {Mode.SILENT, Mode.OFF}:
        raise CommandFailed("--send: this packet was decided not to be shown, and stays so; take another one")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _masked(one: Rehearsed, packet: InferencePacket) -> Rehearsed:
    subject, outcome = packet.subject, packet.outcome
    csn = outcome.entity_id if isinstance(outcome, Scored) else None
    ids = [each for each in (subject.patient_id, subject.encounter_id, subject.order_id, csn) if each]
    parts = urlsplit(one.url)
    query = [(name, _hidden(name, value, ids)) for name, value in parse_qsl(parts.query)]
    url = one.url.partition("?")[0] + (f"?{urlencode(query, safe=_HIDDEN)}" if query else "")
    return replace(one, url=url, body=_without(one.body, ids))


def _without(value: Any, ids: Iterable[str], name: str = "") -> Any:
    match value:
        case dict():
            return {key: _without(held, ids, key) for key, held in value.items()}
        case list():
            return [_without(held, ids, name) for held in value]
        case str():
            return _hidden(name, value, ids)
        case _:
            return value


def _hidden(name: str, value: str, ids: Iterable[str]) -> str:
    if name in _NAMING_A_PERSON:
        return _HIDDEN
    for each in ids:
        value = re.sub(rf"(?<![A-Za-z0-9.-]){re.escape(each)}(?![A-Za-z0-9.-])", _HIDDEN, value)
    return value


def _show(one: Rehearsed, console: Console) -> None:
    console.print(Text(f"{one.method} {one.url}", style="bold"), soft_wrap=True)
    for name, value in one.headers.items():
        console.print(Text(f"{name}: {value}", style="dim"), soft_wrap=True)
    body = one.body if isinstance(one.body, str) else json.dumps(one.body, indent=2, ensure_ascii=False)
    console.print(Text(body), soft_wrap=True)
