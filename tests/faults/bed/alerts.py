"""Runs a case over the CDA-XML channel: sends the document as an alert does, and compares what came.

A case's ``request`` may hold ``cda`` (places of the example document with other XML, see `tests.cda`), ``body`` (in
place of it), ``encoding`` (utf-8), ``gzip``, ``prefix``, ``soap`` (1.1 or 1.2), ``soap_header``, ``headers`` (to
merge), ``login`` (user and password; null: none), ``password_size``, ``model``, ``copies`` (so often at once), ``same``
(the event of a step before, so that nothing is written) and ``once`` (not sent again for comparison).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lxml import etree

import deployr_serve.triggers
from tests.cda import SETTINGS, SOAP_11, SOAP_12, cda, ii, in_soap, prefixed
from tests.faults.bed.chart import CANARIES, NAMES
from tests.faults.bed.expected import _fits
from tests.faults.bed.rows import Case, Expect, Step, filled_in, merged
from tests.faults.bed.runner import _SLACK_S, run_case
from tests.faults.bed.running import Bed, Run

LOGIN = "epic:correct horse battery"
_POLICY = """\
schema_version: 1
model: hematocrit
mode: live
threshold: 0.5
advisory: {headline: "About hematocrit", acknowledge_reasons: [{code: sicker, display: Is sicker}]}
"""
_PLACES = {"patient": (1, "patient"), "encounter": (3, "encounter"), "order": (5, "order")}
_SAID = {"OK": "scored", "AB": "abstained", "FS": "failed", "RJ": "rejected"}
_KIND = {"OK": "scored", "AB": "abstained", "FS": "failed", "RJ": "none", "A401": "none"}
_SOAP = {"1.1": SOAP_11, "1.2": SOAP_12}
_SCHEMA = etree.XMLSchema(etree.parse(Path(deployr_serve.triggers.__file__).with_name("bpa.xsd")))
_NONE = b'<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="1"><Outcome>none</Outcome></AdvisoryResponse>'
_NOT_TO_BE_READ = "CanaryFile7"


async def run_alert_case(case: Case, bed: Bed) -> list[str]:
    """Run one case; see `runner.run_case`."""
    with tempfile.TemporaryDirectory() as folder:
        alert = _Alert(Path(folder), bed, case)
        problems = await run_case(case, replace(bed, app_of=alert.app_of), take=alert.take)
        return [*problems, *alert.read_files()]


class _Alert:
    def __init__(self, folder: Path, bed: Bed, case: Case) -> None:
        self._folder = folder
        self._bed = bed
        self._case = case
        self._canary = folder / "canary.txt"
        self._canary.write_text(_NOT_TO_BE_READ)
        # Older than its change: reading it then notes the time even where a disk is mounted to note few.
        os.utime(self._canary, (1.0, 2.0))

    def app_of(self, origin: str, **settings: str) -> Any:
        """Build the app with one caller, and a policy that advises on every score."""
        (self._folder / "hematocrit.yaml").write_text(_POLICY)
        user, _, password = LOGIN.partition(":")
        given = {
            **SETTINGS,
            "DEPLOYR_DEPLOYMENTS": str(self._folder),
            "DEPLOYR_BPA_CALLERS": json.dumps({user: password, "other": password}),
            **settings,
        }
        return self._bed.app_of(origin, **given)

    def read_files(self) -> list[str]:
        """Say if the file that no document may reach was read."""
        return [] if self._canary.stat().st_atime == 1.0 else ["the canary file was read"]

    async def take(self, run: Run, step: Step) -> None:
        """Take one step: its documents, and the same document again."""
        run.advanced_s += step.advance_s
        [upstream] = run.upstreams
        expected = step.expected[0]
        if expected.answer == "START":
            run.expect(not run.apps, "started, though these settings cannot work")
        if not run.apps or expected.answer == "START":
            return
        values = {**run.values, "canary_file": self._canary.as_uri()}
        request = filled_in(merged(self._case.request, step.request), values)
        before = len(upstream.calls)
        started = time.monotonic()
        answers = await asyncio.gather(*(_send(run, request) for _ in range(int(request.get("copies", 1)))))
        took_s = time.monotonic() - started
        run.expect(took_s <= run.deadline_s + _SLACK_S, f"answered after {took_s:.1f} s")
        run.answers += answers
        calls = upstream.calls[before:]
        run.expect(len({answer.get_body() for answer in answers}) == 1, "different answers to the same document")
        for answer in answers:
            self._check_form(run, request, expected, answer)
            await self._compare(run, step, answer)
        written = {call.target for call in calls if call.route == "score"}
        due = int(expected.answer == "OK" and "same" not in request)
        run.expect(len(written) == due, f"expected {due} writes, got {len(written)}")
        for pattern, how_many in expected.calls.items():
            came = [call for call in calls if fnmatchcase(call.route, pattern.replace("?", "[?]"))]
            run.expect(_fits(len(came), how_many), f"expected {how_many} calls of {pattern}, got {len(came)}")
        await self._repeat(run, request, expected, answers[0])

    async def _repeat(self, run: Run, request: Mapping[str, Any], expected: Expect, first: Any) -> None:
        if "once" in request:
            return
        before = len(await _stored(run))
        again = await _send(run, request)
        run.answers.append(again)
        run.expect(len(await _stored(run)) == before, "another number of packets after the same document")
        if expected.answer != "FS":
            run.expect(again.get_body() == first.get_body(), "another answer to the same document")

    async def _compare(self, run: Run, step: Step, answer: Any) -> None:
        tries = [await _differences(run, expected, answer) for expected in step.expected]
        run.problems += min(tries, key=len)

    def _check_form(self, run: Run, request: Mapping[str, Any], expected: Expect, answer: Any) -> None:
        run.expect(bool(answer.headers.get("X-Correlation-Id")), "expected X-Correlation-Id")
        lines = "".join(f"{name}{value}" for name, value in answer.headers.items())
        run.expect(not {"\r", "\n"} & set(lines) and "Set-Cookie" not in answer.headers, "a header was injected")
        if answer.status_code != 200:
            return
        root = etree.fromstring(answer.get_body())
        if request.get("soap"):
            space = _SOAP[request["soap"]]
            run.expect(root.tag == f"{{{space}}}Envelope", "expected the answer in the envelope of the question")
            root = root[0][0]
        run.expect(_SCHEMA.validate(root), f"not valid by bpa.xsd: {_SCHEMA.error_log}")
        advises = root.findtext("{*}Outcome") == "advise"
        run.expect(advises == (expected.answer == "OK"), f"expected advice with OK and only then, got {advises}")
        if not advises:
            run.expect(_NONE in answer.get_body(), "expected the one answer without advice")


async def _differences(run: Run, expected: Expect, answer: Any) -> list[str]:
    problems = []
    status = expected.status or (401 if expected.answer == "A401" else 200)
    if answer.status_code != status:
        problems.append(f"expected status {status}, got {answer.status_code}")
    if expected.answer == "A401":
        if answer.get_body() or not (answer.headers.get("WWW-Authenticate") or "").startswith("Basic"):
            problems.append("expected an empty body and the challenge Basic")
    else:
        said, _, code = (answer.headers.get("X-Bridge-Outcome") or "").partition(";code=")
        if said != _SAID[expected.answer] or (expected.reasons and code not in expected.reasons):
            problems.append(f"expected {_SAID[expected.answer]} {' or '.join(expected.reasons)}, got {said} {code}")
    kind = expected.packet or _KIND[expected.answer]
    kinds = [str(packet.outcome.__struct_config__.tag) for packet in await _stored(run)]
    if kinds != ([] if kind == "none" else [kind]):
        problems.append(f"expected a packet {kind}, got {kinds}")
    return problems


async def _stored(run: Run) -> list[Any]:
    packets = await run.apps[0].store.packets(model_id="hematocrit", after=None, limit=100)
    assert all(packet.is_terminal for packet in packets)
    return list(packets)


async def _send(run: Run, request: Mapping[str, Any]) -> Any:
    headers = {"Content-Type": "application/soap+xml" if request.get("soap") == "1.2" else "text/xml"}
    login = request.get("login", LOGIN)
    if login is not None:
        login += "x" * int(request.get("password_size", 0))
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    return await run.apps[0].bpa(
        _body(request), model=request.get("model", "hematocrit"), headers={**headers, **request.get("headers", {})}
    )


def _body(request: Mapping[str, Any]) -> bytes:
    text = request.get("body")
    if text is None:
        places = {place: ii(root, NAMES[name]) for place, (root, name) in _PLACES.items()}
        changes = request.get("cda", {})
        if "record_target" in changes or "entry" in changes:
            places.pop("patient" if "record_target" in changes else "order")
        text = cda(**{**places, **changes}).replace("<family>Read", f"<family>{CANARIES['name']}")
        text = text.replace(
            'birthTime nullFlavor="UNK"', f'birthTime value="{CANARIES["birth date"].replace("-", "")}"'
        )
        text = text.replace("</text>", f"{CANARIES['record number']} {CANARIES['birth date']}</text>")
        text = prefixed(text, request["prefix"]) if "prefix" in request else text
    if request.get("soap"):
        text = in_soap(text, _SOAP[request["soap"]], header=request.get("soap_header", ""))
    body = text.encode(request.get("encoding", "utf-8"))
    return gzip.compress(body) if request.get("gzip") else body
