"""Runs a case over CDS Hooks: signs the call, fires the hook, and compares what came.

A case's ``request`` may hold ``token`` (``header`` and ``claims`` to merge, ``key``, one that is ``raw``; null: none),
``hook`` (to merge into the call), ``body`` (in place of it), ``handed`` (prefetch by key, ``all`` first), ``method``,
``path``, ``content_type``, ``copies`` (the same call so often at once, over all apps in turn), ``models`` (so many are
deployed and asked at once), ``store_down``, ``store_slow`` (the packet is stored when the answer is out) and
``same_token`` (as the step before). In the values of claims ``now+300``
is an instant, ``text:``, ``float:`` and ``size:`` make odd ones.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jsonschema
import jwt
from cryptography.hazmat.primitives import serialization

from deployr_serve.core.errors import StoreUnavailable
from tests.faults.bed.chart import NAMES
from tests.faults.bed.expected import _fits, _reason_in
from tests.faults.bed.rows import Case, Expect, Step, filled_in, merged
from tests.faults.bed.runner import _SLACK_S, run_case
from tests.faults.bed.running import Bed, Run

PUBLIC = "https://cds.hospital.example"
ISSUER = "https://emr.hospital.example/fhir"
_SERVICE = "hematocrit-order-sign"
_STATUS = {"OK": 200, "AB": 200, "FS": 412, "RJ": 400, "A401": 401}
_KIND = {"OK": "scored", "AB": "abstained", "FS": "failed", "RJ": "none", "A401": "none"}
_RESPONSE = json.loads((Path(__file__).parents[2] / "schemas" / "cds_hooks" / "response.json").read_text())
_POLICY = """\
schema_version: 1
model: {model}
mode: live
threshold: 0.5
groups: [panel]
advisory: {{headline: "About {model}", detail: "<img src=x onerror=alert(1)>", source_label: "<b>Lab</b>"}}
"""


async def run_hook_case(case: Case, bed: Bed) -> list[str]:
    """Run one case; see `runner.run_case`."""
    with tempfile.TemporaryDirectory() as folder:
        caller = _Caller(Path(folder), bed, case)
        return await run_case(case, replace(bed, app_of=caller.app_of), take=caller.take)


class _Caller:
    def __init__(self, folder: Path, bed: Bed, case: Case) -> None:
        self._folder = folder
        self._bed = bed
        self._case = case
        self._models = ["hematocrit"]
        self._tokens: list[str | None] = []

    def app_of(self, origin: str, **settings: str) -> Any:
        """Build the app with a client that is let in, and a policy that advises on every score."""
        number = int(self._case.request.get("models", 1))
        settings["DEPLOYR_BUNDLES"] = str(self._copies(Path(settings["DEPLOYR_BUNDLES"]), number))
        deployments = self._folder / "deployments"
        deployments.mkdir(exist_ok=True)
        for model in self._models:
            (deployments / f"{model}.yaml").write_text(_POLICY.format(model=model))
        client = {"issuer": ISSUER, "jwks_file": "keys.json", **self._case.request.get("client", {})}
        client = {name: value for name, value in client.items() if value is not None}
        (self._folder / "keys.json").write_text(json.dumps(self._key_set()))
        written = json.dumps({"clients": [filled_in(client, {"origin": origin})]})
        (self._folder / "clients.json").write_text(written)
        given = {
            "DEPLOYR_CDS_CLIENTS": str(self._folder / "clients.json"),
            "DEPLOYR_PUBLIC_BASE": PUBLIC,
            "DEPLOYR_DEPLOYMENTS": str(deployments),
            **settings,
        }
        store = given["DEPLOYR_STORE"].replace("$folder", str(self._folder))
        return self._bed.app_of(origin, **{**given, "DEPLOYR_STORE": store})

    async def take(self, run: Run, step: Step) -> None:
        """Take one step: its calls, and the same call again under a new token."""
        run.advanced_s += step.advance_s
        [upstream] = run.upstreams
        upstream.cds_keys = self._key_set()
        [expected] = step.expected
        if expected.answer == "START":
            run.expect(not run.apps, "started, though these settings cannot work")
            return
        if not run.apps:
            return
        request = filled_in({**self._case.request, **step.request}, run.values)
        if not request.get("same_token"):
            self._tokens = [self._token(request, run, model) for model in self._models]
        if request.get("store_down"):
            _take_store_down(run)
        slow = _make_store_slow(run) if request.get("store_slow") else None
        calls_before, instance = len(upstream.calls), str(uuid.uuid4())
        to_apps = [(number, 0) for number in range(int(request.get("copies", 1)))]
        if len(self._models) > 1:
            to_apps = [(0, place) for place in range(len(self._models))]
        started = time.monotonic()
        answers = await asyncio.gather(
            *(self._send(run, request, number, instance, place=place) for number, place in to_apps)
        )
        took_s = time.monotonic() - started
        if slow is not None:
            slow[0].set()
            await _check_late(run, slow[1])
        run.expect(took_s <= run.deadline_s + _SLACK_S, f"answered after {took_s:.1f} s")
        run.answers += answers
        let_in = [answer for answer in answers if answer.status_code != 401]
        if len(answers) > 1 and len(self._models) == 1 and expected.answer != "A401":
            run.expect(len(let_in) == 1, f"expected one of {len(answers)} to be let in, got {len(let_in)}")
            answers = let_in
        packets: set[str] = set()
        for answer in answers:
            _check_form(run, answer)
            packets |= await self._compare(run, expected, answer)
        written = {call.target for call in upstream.calls[calls_before:] if call.route == "score"}
        due = len(packets) if expected.answer == "OK" else 0
        due = due if expected.writes is None else expected.writes
        run.expect(len(written) == due, f"expected {due} writes, got {len(written)}")
        calls = upstream.calls[calls_before:]
        for pattern, how_many in expected.calls.items():
            came = [call for call in calls if fnmatchcase(call.route, pattern.replace("?", "[?]"))]
            run.expect(_fits(len(came), how_many), f"expected {how_many} calls of {pattern}, got {len(came)}")
        await self._repeat(run, request, answers, instance)

    async def _repeat(self, run: Run, request: Mapping[str, Any], answers: list[Any], instance: str) -> None:
        if len(self._models) > 1 or answers[0].status_code not in {200, 412, 422} or request.get("copies"):
            return
        before = await self._stored(run)
        self._tokens = [self._token(request, run, "hematocrit")]
        again = await self._send(run, request, 0, instance)
        run.answers.append(again)
        run.expect(await self._stored(run) == before, "another number of packets after the same call")
        if answers[0].status_code == 200:
            run.expect(again.get_body() == answers[0].get_body(), "another answer to the same call")

    async def _stored(self, run: Run) -> int:
        kept = [await app.store.packets(model_id="hematocrit", after=None, limit=100) for app in run.apps]
        assert all(packet.is_terminal for packets in kept for packet in packets)
        return sum(map(len, kept))

    async def _compare(self, run: Run, expected: Expect, answer: Any) -> set[str]:
        status = expected.status or _STATUS[expected.answer]
        content = json.loads(answer.get_body() or b"{}")
        reason = _reason_in(content)
        run.expect(answer.status_code == status, f"expected status {status}, got {answer.status_code} {reason}")
        if expected.reasons:
            run.expect(reason in expected.reasons, f"expected {' or '.join(expected.reasons)}, got {reason}")
        if expected.answer == "OK":
            run.expect(len(content.get("cards", ())) == 1, "expected one card")
        if expected.answer == "AB":
            run.expect(answer.get_body() == b'{"cards":[]}', "expected no cards, and no other byte")
        named = set(filter(None, (answer.headers.get("X-Packet-Id") or "").split(", ")))
        kind = expected.packet or _KIND[expected.answer]
        outcomes = []
        for app in run.apps:
            for packet_id in named:
                stored = await app.store.read(packet_id)
                outcomes += [stored.packet.outcome] if stored else []
        kinds = {str(outcome.__struct_config__.tag) for outcome in outcomes}
        run.expect(kinds == ({kind} if kind != "none" else set()), f"expected a packet {kind}, got {kinds}")
        if kind == "abstained" and expected.counts:
            kept = {getattr(outcome, "reason", None) for outcome in outcomes}
            run.expect(kept == set(expected.counts), f"expected {set(expected.counts)} in the packet, got {kept}")
        return named

    async def _send(self, run: Run, request: Mapping[str, Any], number: int, instance: str, *, place: int = 0) -> Any:
        app = run.apps[number % len(run.apps)]
        path = request.get("path", _SERVICE if place == 0 else f"{self._models[place]}-order-sign")
        headers = {"Content-Type": request.get("content_type", "application/json")}
        if self._tokens[place] is not None:
            headers["Authorization"] = f"Bearer {self._tokens[place]}"
        body = request["body"].encode() if "body" in request else self._body(run, request, instance)
        return await app.cds(request.get("method", "POST"), path, headers=headers, body=body)

    def _body(self, run: Run, request: Mapping[str, Any], instance: str) -> bytes:
        drafts = [self._draft(f"d{number}") for number in range(int(request.get("drafts", 1)))]
        call = {
            "hook": "order-sign",
            "hookInstance": instance,
            "fhirServer": run.values["base"],
            "context": {
                "userId": "Practitioner/dr1",
                "patientId": NAMES["patient"],
                "encounterId": NAMES["encounter"],
                "draftOrders": {"resourceType": "Bundle", "entry": [{"resource": each} for each in drafts]},
            },
        }
        handed = dict(request.get("handed", {}))
        if handed:
            whole = self._handed(run) if handed.pop("all", False) else {}
            whole |= {key: _special(value) for key, value in handed.items()}
            call["prefetch"] = {key: value for key, value in whole.items() if value != "absent"}
        return json.dumps(merged(call, request.get("hook", {}))).encode()

    def _draft(self, draft_id: str) -> dict[str, Any]:
        return {
            "resourceType": "ServiceRequest",
            "id": draft_id,
            "status": "draft",
            "code": {"coding": [{"system": "http://loinc.org", "code": "57021-8"}]},
            "subject": {"reference": f"Patient/{NAMES['patient']}"},
        }

    def _handed(self, run: Run) -> dict[str, Any]:
        """Hand over all that the service asks for, as the chart has it."""
        service = run.apps[0].application.cds.services[_SERVICE]
        whole: dict[str, Any] = {}
        for key, template in service.prefetch.items():
            kind = template.partition("?")[0].partition("/")[0]
            found = [each for each in run.upstreams[0].chart.values() if each["resourceType"] == kind]
            entries = [{"resource": each, "search": {"mode": "match"}} for each in found]
            bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries}
            whole[key] = found[0] if "/" in template.partition("?")[0] else bundle
        return whole

    def _token(self, request: Mapping[str, Any], run: Run, model: str) -> str | None:
        given = request.get("token", {})
        if given is None:
            return None
        if "raw" in given:
            return str(_special(given["raw"]))
        now = int(time.time())
        path = request.get("path", f"{model}-order-sign")
        claims = {
            "iss": ISSUER,
            "aud": f"{PUBLIC}/cds-services/{path}".rstrip("/"),
            "iat": now,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
        }
        odd = {name: _special(value, now=now) for name, value in given.get("claims", {}).items()}
        header = merged({"alg": "ES384", "kid": "cds1", "typ": "JWT"}, given.get("header", {}))
        signed = f"{_base64url(header)}.{_base64url(merged(claims, odd))}"
        return f"{signed}.{self._signature(signed.encode(), header['alg'], given.get('key', 'ec2'))}"

    def _signature(self, signed: bytes, algorithm: str, key: str) -> str:
        pem = (self._bed.keyring.folder / f"{key}.pem").read_bytes()
        private: Any = serialization.load_pem_private_key(pem, None)
        if algorithm == "none":
            return ""
        if algorithm.startswith("HS"):
            public = private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return _base64url(hmac.digest(public, signed, f"sha{algorithm[2:]}"))
        return _base64url(jwt.get_algorithm_by_name(algorithm).sign(signed, private))

    def _key_set(self) -> dict[str, Any]:
        """Give the EMR's key set: ``cds1`` on P-384 and ``rsa``, and what the case adds."""
        keys = []
        kid = self._case.request.get("kid", "cds1")
        for key_id, name, algorithm in ((kid, "ec2", "ES384"), ("rsa", "rsa1", "RS384")):
            pem = (self._bed.keyring.folder / f"{name}.pem").read_bytes()
            public: Any = serialization.load_pem_private_key(pem, None).public_key()
            keys.append({**json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(public)), "kid": key_id})
        twice = [{**keys[1], "kid": "cds1"}] if self._case.request.get("kid_twice") else []
        return {"keys": [*keys, *twice]}

    def _copies(self, folder: Path, number: int) -> Path:
        """Give a folder with so many models, all alike but in their names."""
        bundles = self._folder / "bundles"
        self._models = ["hematocrit", *(f"copy-{place}" for place in range(2, number + 1))]
        for model in self._models:
            if not (bundles / model).exists():
                shutil.copytree(folder / "hematocrit", bundles / model)
            manifest = bundles / model / "manifest.json"
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "model_id": model}))
        return bundles


def _check_form(run: Run, answer: Any) -> None:
    from fhirclient.models.operationoutcome import OperationOutcome

    run.expect(bool(answer.headers.get("X-Correlation-Id")), "expected X-Correlation-Id")
    if answer.status_code == 401:
        run.expect(answer.headers.get("WWW-Authenticate") == "Bearer", "expected WWW-Authenticate: Bearer")
        run.expect(answer.get_body() == b"", "expected an empty body with 401")
    elif answer.status_code >= 400:
        OperationOutcome(json.loads(answer.get_body()), strict=True)
        if answer.status_code == 405:
            run.expect(bool(answer.headers.get("Allow")), "expected Allow")
    else:
        valid = jsonschema.Draft202012Validator(_RESPONSE).is_valid(json.loads(answer.get_body()))
        run.expect(valid, "an answer that its schema refuses")


def _take_store_down(run: Run) -> None:
    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("expected a store that can be read and written")

    for app in run.apps:
        app.application.services.records.create_record = down


def _make_store_slow(run: Run) -> tuple[asyncio.Event, asyncio.Event]:
    """Have finished packets stored only once the first event is set; the second one is, when one was taken back."""
    answered, taken_back = asyncio.Event(), asyncio.Event()
    [app] = run.apps
    replace_now, erase_now = app.store.replace, app.store.erase

    async def when_answered(packet: Any, **more: Any) -> Any:
        await answered.wait()
        return await replace_now(packet, **more)

    async def noting(packet_id: str, **more: Any) -> Any:
        erased = await erase_now(packet_id, **more)
        taken_back.set()
        return erased

    app.store.replace, app.store.erase = when_answered, noting
    return answered, taken_back


async def _check_late(run: Run, taken_back: asyncio.Event) -> None:
    """See to it that what was stored late has become a failure, with nothing shown and nothing owed."""
    async with asyncio.timeout(_SLACK_S):
        await taken_back.wait()
    [app] = run.apps
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=10)
    run.expect(getattr(packet.outcome, "reason", None) == "deadline", "expected the packet to say that it was late")
    belongings = await app.store.belongings(packet.packet_id)
    run.expect(not belongings.events, "expected nothing to be noted as shown")
    run.expect(not belongings.deliveries, "expected nothing to be owed to the EMR")


def _special(value: Any, *, now: int = 0) -> Any:
    if not isinstance(value, str):
        return value
    kind, _, text = value.rpartition(":") if value.startswith(("text:", "float:", "size:")) else ("", "", value)
    if kind == "size":
        return "a" * int(text)
    if text.startswith(("now+", "now-")):
        instant = now + int(text[3:])
        return {"text": str(instant), "float": float(instant)}.get(kind, instant)
    return value


def _base64url(content: Any) -> str:
    octets = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
