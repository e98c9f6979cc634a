"""The scripted EMR: SMART discovery, tokens, FHIR searches and the score column, on a bare socket.

On a bare socket, because half of what goes wrong is what no HTTP library would send.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mock_emr.assertion import AssertionRefused, Key, UsedAssertions, check_assertion
from tests.faults.bed.generated import GENERATED
from tests.faults.bed.rows import Rule, filled_in, merged

BASE_PATH = "/api/FHIR/R4"
_FHIR = "application/fhir+json"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that the EMR got. ``grant`` is the scope of its token, None without a token that is good."""

    route: str
    method: str
    target: str
    headers: Mapping[str, str]
    parameters: Mapping[str, list[str]]
    at: float
    grant: str | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes back, before a rule spoils it. ``body`` may be pieces, sent until nobody listens."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Upstream:
    """An EMR over one chart, spoilt by rules.

    Args:
        chart: resources by name.
        rules: of those that fit a call, the first one decides.
        keys: the client's registered keys by key id, and which of them are registered at first.
    """

    def __init__(
        self,
        *,
        chart: Mapping[str, Any],
        rules: tuple[Rule, ...],
        keys: Mapping[str, Key],
        values: Mapping[str, str],
    ) -> None:
        self.calls: list[Call] = []
        self.own_faults: list[str] = []
        self.registered = tuple(keys)
        self.cds_keys: Mapping[str, Any] = {"keys": []}
        self._keys = keys
        self.chart = chart
        self._rules = rules
        self._values = dict(values)
        self._used = UsedAssertions()
        self._grants: dict[str, str] = {}
        self._counted: Counter[tuple[int, str]] = Counter()
        self._over = asyncio.Event()

    def revoke(self) -> None:
        """Take back every token that was given."""
        self._grants.clear()

    @asynccontextmanager
    async def listening(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[str]:
        """Serve, and give the origin."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
                    while await self._exchange(reader, writer):
                        pass
            except Exception as error:  # noqa: BLE001 a mistake of a row's, to be told with its result
                self.own_faults.append(f"the scripted EMR failed: {error!r}")
            finally:
                writer.close()
                tasks.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
        port = server.sockets[0].getsockname()[1]
        origin = f"{'https' if tls else 'http'}://{host}:{port}"
        self._values |= {"origin": origin, "base": origin + BASE_PATH, "port": str(port)}
        try:
            yield origin
        finally:
            self._over.set()
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ", 2)
        parts = urlsplit(target)
        parameters = parse_qs(body.decode() if "form" in headers.get("content-type", "") else parts.query)
        call = Call(
            route=_route(method, parts.path, parameters),
            method=method,
            target=target,
            headers=headers,
            parameters=parameters,
            at=time.monotonic(),
            grant=self._grants.get(headers.get("authorization", "").removeprefix("Bearer ")),
        )
        self.calls.append(call)
        rule = self._rule(call)
        reply = self._healthy(call, body, rule)
        if rule is not None:
            reply = self._spoilt(reply, rule, call)
        return await self._send(reply, rule.wire if rule else "whole", reader, writer)

    def _rule(self, call: Call) -> Rule | None:
        for place, rule in enumerate(self._rules):
            if not fnmatchcase(call.route, rule.route.replace("?", "[?]")):
                continue
            self._counted[place, call.route] += 1
            count = self._counted[place, call.route]
            if (rule.nth is None or rule.nth == count) and (rule.times is None or count <= rule.times):
                return rule
        return None

    # -- healthy answers

    def _healthy(self, call: Call, body: bytes, rule: Rule | None) -> Reply:
        route = call.route.partition("?")[0]
        if route == "discovery":
            return _json(
                {
                    "issuer": self._values["base"],
                    "token_endpoint": f"{self._values['origin']}/oauth2/token",
                    "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                    "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
                    "grant_types_supported": ["client_credentials"],
                    "scopes_supported": ["system/*.rs"],
                    "capabilities": ["client-confidential-asymmetric"],
                }
            )
        if route == "metadata":
            return _json({"resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1"})
        if route == "token":
            return self._token(call)
        if route == "jwks":
            return _json(self.cds_keys)
        if call.grant is None:
            return _outcome(401, "login")
        if route == "score":
            return _json({})
        if route == "batch":
            return self._batch(json.loads(body))
        if route == "unknown":
            return _outcome(404, "not-found")
        return self._found(route, call, rule)

    def _token(self, call: Call) -> Reply:
        sent = {name: values[0] for name, values in call.parameters.items()}
        clients = {"client-1": tuple(key for kid, key in self._keys.items() if kid in self.registered)}
        now = datetime.now(UTC)
        try:
            proof = check_assertion(
                sent.get("client_assertion", ""),
                clients=clients,
                audience=f"{self._values['origin']}/oauth2/token",
                now=now,
            )
        except AssertionRefused:
            return _json({"error": "invalid_client"}, status=400)
        if sent.get("grant_type") != "client_credentials" or not self._used.use(proof, now=now):
            return _json({"error": "invalid_request"}, status=400)
        token = f"token-{len(self._grants) + 1}-of-{self._values['origin'].rpartition(':')[2]}-{len(self.calls)}"
        self._grants[token] = sent.get("scope", "system/*.rs")
        return _json({"access_token": token, "token_type": "bearer", "expires_in": 300, "scope": self._grants[token]})

    def _batch(self, bundle: Mapping[str, Any]) -> Reply:
        answers = []
        for entry in bundle.get("entry", ()):
            path, _, query = entry["request"]["url"].partition("?")
            kind, _, resource_id = path.strip("/").partition("/")
            wanted = [resource_id] if resource_id else parse_qs(query).get("_id", [""])[0].split(",")
            found = [one for one in self._of_type(kind) if one["id"] in wanted]
            if not resource_id:
                answers.append({"response": {"status": "200"}, "resource": _searchset(found)})
            elif found:
                answers.append({"response": {"status": "200"}, "resource": found[0]})
            else:
                answers.append({"response": {"status": "404"}})
        return _json({"resourceType": "Bundle", "type": "batch-response", "entry": answers})

    def _of_type(self, kind: str) -> list[Mapping[str, Any]]:
        return [one for one in self.chart.values() if one["resourceType"] == kind]

    def _found(self, kind: str, call: Call, rule: Rule | None) -> Reply:
        found = self._of_type(kind)
        path = urlsplit(call.target).path.removeprefix(f"{BASE_PATH}/").split("/")
        if len(path) == 2 and path[1] != "_search":
            return next((_json(one) for one in found if one["id"] == path[1]), _outcome(404, "not-found"))
        if rule is not None and rule.only is not None:
            found = [self.chart[name] for name in rule.only]
        elif "_id" in call.parameters:
            # By the name that the chart's resource goes by, so that one that calls itself otherwise is found as well.
            wanted = ",".join(call.parameters["_id"]).split(",")
            named = {self._values.get(kind_name, ""): kind_name for kind_name in ("patient", "encounter", "order")}
            found = [one for one in found if one["id"] in wanted] or [
                self.chart[named[each]] for each in wanted if named.get(each) in self.chart
            ]
        bundle = _searchset(found)
        if call.route.endswith("?count"):
            return Reply(body={**bundle, "entry": []}, headers={"Content-Type": _FHIR})
        for include in call.parameters.get("_include", ()):
            if include.startswith(f"{kind}:"):
                bundle["entry"] += [
                    {"resource": one, "search": {"mode": "include"}}
                    for one in self._of_type("Medication")
                    if kind == "MedicationRequest"
                ]
        return Reply(body=bundle, headers={"Content-Type": _FHIR})

    # -- spoilt answers

    def _spoilt(self, reply: Reply, rule: Rule, call: Call) -> Reply:
        page = int(parse_qs(urlsplit(call.target).query).get("page", ["1"])[0])
        values = {
            **self._values,
            "next": str(page + 1),
            "soon": formatdate(time.time() + 2, usegmt=True),
        }
        body, content_type = reply.body, reply.headers.get("Content-Type", _FHIR)
        if rule.text is not None:
            body, content_type = filled_in(rule.text, values).encode(), "text/html"
        elif rule.json is not _UNSET:
            body, content_type = json.dumps(filled_in(rule.json, values)).encode(), _FHIR
        elif rule.generate is not None:
            generated = GENERATED[rule.generate](reply.body)
            return Reply(status=rule.status or 200, body=generated.body, headers=generated.headers)
        elif isinstance(body, dict):
            extra = filled_in(rule.entries, values)
            body = merged({**body, "entry": [*body["entry"], *extra]}, filled_in(rule.bundle, values))
        elif rule.merge:
            body = json.dumps(merged(json.loads(body), filled_in(rule.merge, values))).encode()
        headers = {**reply.headers, "Content-Type": content_type, **filled_in(rule.headers, values)}
        return Reply(status=rule.status or reply.status, body=body, headers=headers)

    async def _send(self, reply: Reply, wire: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if wire == "hang":
            await self._nobody_there(reader)
            return False
        if wire == "drop":
            return False
        pieces = [json.dumps(reply.body).encode()] if isinstance(reply.body, dict) else reply.body
        pieces = [pieces] if isinstance(pieces, bytes) else pieces
        size = sum(map(len, pieces)) if isinstance(pieces, list) else None
        ends = wire == "cut" or size is None
        head = [f"HTTP/1.1 {reply.status} Scripted", f"Date: {formatdate(usegmt=True)}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head.append("Connection: close" if ends else f"Content-Length: {size}")
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        for piece in pieces:
            if wire in {"cut", "short"}:
                writer.write(piece[: len(piece) // 2])
            elif wire == "drip":
                await self._drip(piece, reader, writer)
            else:
                writer.write(piece)
            await writer.drain()
        return not ends and wire == "whole"

    async def _drip(self, piece: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for place in range(len(piece)):
            writer.write(piece[place : place + 1])
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._nobody_there(reader)
                    return

    async def _nobody_there(self, reader: asyncio.StreamReader) -> None:
        """Wait until the caller has hung up, or the case is over."""
        waiting = [asyncio.ensure_future(reader.read(1)), asyncio.ensure_future(self._over.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


_UNSET = Rule(route="").json


def _route(method: str, path: str, parameters: Mapping[str, list[str]]) -> str:
    if path.endswith("/.well-known/smart-configuration"):
        return "discovery"
    if path.startswith("/oauth2/token"):
        return "token"
    if path == "/cds/jwks.json":
        return "jwks"
    if "HANDLEEXTERNALMODELSCORES" in path:
        return "score"
    if path in {BASE_PATH, f"{BASE_PATH}/"} and method == "POST":
        return "batch"
    if not path.startswith(f"{BASE_PATH}/"):
        return "unknown"
    kind = path.removeprefix(f"{BASE_PATH}/").partition("/")[0]
    if parameters.get("_summary") == ["count"]:
        return f"{kind}?count"
    return kind + (f"?page={parameters['page'][0]}" if "page" in parameters else "")


def _searchset(found: list[Any]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(found),
        "link": [{"relation": "self", "url": "urn:self"}],
        "entry": [{"resource": one, "search": {"mode": "match"}} for one in found],
    }


def _json(content: object, *, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(content).encode(), headers={"Content-Type": "application/json"})


def _outcome(status: int, code: str) -> Reply:
    return _json({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]}, status=status)
