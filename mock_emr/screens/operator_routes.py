"""The operator's screens: clock, faults, where the bridge is; the journal; what went over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.clock import FASTEST, ClockError
from mock_emr.dates import DateError, instant_of
from mock_emr.emr import FHIR_ROOT, Emr
from mock_emr.exchange import JSON
from mock_emr.faults import ROUTES, FaultError, Rule, rules_in
from mock_emr.journal import Call
from mock_emr.parameters import PARAMETERS
from mock_emr.screens.bridge import Bridge, BridgeError, settings_in
from mock_emr.screens.pages import FormRefused, Pages, form_of, go
from mock_emr.screens.wire import Wire

STEPS: Mapping[str, timedelta] = {
    "10 min": timedelta(minutes=10),
    "1 hour": timedelta(hours=1),
    "8 hours": timedelta(hours=8),
    "1 day": timedelta(days=1),
}
RATES = (1, 60, 600, 3600)
_ENTRIES = 200


@dataclass(frozen=True, kw_only=True)
class OperatorScreens:
    """What the operator's routes share."""

    emr: Emr
    pages: Pages
    bridge: Bridge
    wire: Wire

    def routes(self) -> list[Route]:
        """Give the routes; those under /admin are for programs, the key set is for the bridge."""
        return [
            Route("/operator", self.operator, methods=["GET"]),
            Route("/operator/clock", self.set_clock, methods=["POST"]),
            Route("/operator/faults", self.set_faults, methods=["POST"]),
            Route("/operator/bridge", self.set_bridge, methods=["POST"]),
            Route("/operator/journal", self.journal, methods=["GET"]),
            Route("/operator/wire", self.exchanges, methods=["GET"]),
            Route("/.well-known/jwks.json", self.key_set, methods=["GET"]),
            Route("/admin/bridge", self.admin_bridge, methods=["GET", "PUT", "DELETE"]),
        ]

    async def operator(self, _: Request) -> Response:
        """Show clock, bridge and faults."""
        return self._page()

    async def set_clock(self, request: Request) -> Response:
        """Set, step, run or pause the clock."""
        clock = self.emr.clock
        try:
            form = await form_of(request)
            match form.get("do"):
                case "set":
                    text = form.get("now", "").strip()
                    clock.put(instant_of(text if text.endswith("Z") else f"{text}Z"))
                case "run":
                    clock.run(float(form.get("rate", "")))
                case "pause":
                    clock.pause()
                case "next":
                    event = self.emr.timeline.next_after(clock.now())
                    if event is None:
                        raise ClockError("nothing more happens in this chart")
                    clock.put(event.at)
                case step:
                    clock.step(STEPS[str(step)])
        except (FormRefused, DateError, ClockError, ValueError, KeyError) as error:
            return self._page(clock_problem=f"The clock was left as it is: {error}")
        return go("/operator#clock")

    async def set_faults(self, request: Request) -> Response:
        """Add a rule from the form or from JSON, remove one, or clear them all."""
        faults = self.emr.faults
        try:
            form = await form_of(request)
            match form.get("do"):
                case "clear":
                    faults.put(())
                case "remove":
                    faults.remove(form.get("name", ""))
                case "json":
                    faults.add(rules_in(form.get("rules", "").encode()))
                case _:
                    faults.add(rules_in(json.dumps(_rule(form)).encode()))
        except (FormRefused, FaultError, ValueError) as error:
            return self._page(fault_problem=f"No rule was added: {error}")
        return go("/operator#faults")

    async def set_bridge(self, request: Request) -> Response:
        """Say where the bridge is, or that there is none."""
        try:
            form = await form_of(request)
            sent: dict[str, Any] = {
                "address": form.get("address", "").strip(),
                "way": form.get("way", ""),
                "services": form.get("services", "").replace(",", " ").split(),
                "wait_s": float(form.get("wait_s", "")),
            }
            held = self.bridge.settings
            # A login is never shown again: an empty field keeps it.
            if login := form.get("login") or (held.login if held is not None else None):
                sent["login"] = login
            self.bridge.settings = None if form.get("do") == "clear" else settings_in(json.dumps(sent).encode())
        except (FormRefused, BridgeError, ValueError) as error:
            return self._page(bridge_problem=f"Nothing was changed: {error}")
        return go("/operator#bridge")

    async def journal(self, request: Request) -> Response:
        """Show the latest calls of the journal, newest first."""
        journal, asked = self.emr.journal, request.query_params
        last = journal.last_sequence()
        entries = reversed(journal.since(max(last - 20 * _ENTRIES, 0), limit=20 * _ENTRIES))
        only, words = asked.get("only", ""), asked.get("words", "").strip()
        shown = [entry for entry in entries if _is_wanted(entry.call, only=only, words=words.casefold())]
        return self.pages.page(
            "journal",
            entries=shown[:_ENTRIES],
            found=len(shown),
            last=last,
            summary=journal.summary(),
            only=only,
            words=words,
        )

    async def exchanges(self, _: Request) -> Response:
        """Show what was asked of the bridge and what it answered, side by side."""
        return self.pages.page("wire", exchanges=self.wire.latest())

    async def admin_bridge(self, request: Request) -> Response:
        """Give or take where the bridge is, as JSON; the login is not given back."""
        if request.method == "PUT":
            try:
                self.bridge.settings = settings_in(await request.body())
            except BridgeError as error:
                return Response(json.dumps({"error": str(error)}), status_code=400, media_type=JSON)
        elif request.method == "DELETE":
            self.bridge.settings = None
        held = self.bridge.settings
        shown = None if held is None else msgspec.structs.replace(held, login="set" if held.login else None)
        return Response(msgspec.json.encode({"bridge": shown}), media_type=JSON)

    async def key_set(self, request: Request) -> Response:
        """Give the keys that the bridge proves this EMR's calls with; their issuer is the FHIR root."""
        return Response(self.bridge.signer(self.emr.url(request, FHIR_ROOT)).key_set(), media_type=JSON)

    def _page(self, **problems: str) -> Response:
        return self.pages.page(
            "operator",
            status=422 if problems else 200,
            steps=tuple(STEPS),
            rates=RATES,
            fastest=FASTEST,
            rules=tuple(_shown(rule) for rule in self.emr.faults.rules()),
            routes=(*sorted(ROUTES), *sorted(PARAMETERS)),
            bodies=_bodies(),
            settings=self.bridge.settings,
            problems=dict.fromkeys(("clock_problem", "fault_problem", "bridge_problem")) | problems,
        )


def _is_wanted(call: Call, *, only: str, words: str) -> bool:
    """Tell whether the journal's filter lets a call through; ``words`` are in lower case."""
    if (only == "failed" and call.status < 400) or (only == "faulty" and call.fault is None):
        return False
    return words in f"{call.method} {call.route} {call.resource_type} {call.correlation_id}".casefold()


def _rule(form: Mapping[str, str]) -> dict[str, Any]:
    """Read the fields of a rule; an empty one is left out."""
    rule: dict[str, Any] = {
        name: form[name].strip() for name in ("route", "patient", "body") if form.get(name, "").strip()
    }
    for name in ("status", "delay_ms", "drip_ms", "times"):
        if text := form.get(name, "").strip():
            rule[name] = int(text)
    return rule


def _shown(rule: Rule) -> tuple[str, str]:
    """Give a rule's name, and the rest of it in words."""
    held = msgspec.to_builtins(rule)
    return str(held.pop("name", "")), ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in held.items())


def _bodies() -> tuple[str, ...]:
    """Give the bodies that a rule may have, as its own type says."""
    schema = msgspec.json.schema(Rule)
    options = schema["$defs"]["Rule"]["properties"]["body"]["anyOf"]
    return tuple(value for option in options for value in option.get("enum", ()))
