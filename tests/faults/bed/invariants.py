"""What holds for every case, whatever its row expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.faults.bed.chart import CANARIES
from tests.faults.bed.network import Watched
from tests.faults.bed.rows import filled_in
from tests.faults.bed.running import Run
from tests.faults.bed.upstream import Upstream


def check_form(run: Run, response: Any) -> None:
    from fhirclient.models.operationoutcome import OperationOutcome

    run.expect(bool(response.headers.get("X-Correlation-Id")), "expected X-Correlation-Id")
    lines = "".join(f"{name}{value}" for name, value in response.headers.items())
    run.expect(not {"\r", "\n"} & set(lines) and "Set-Cookie" not in response.headers, "a header was injected")
    if response.status_code == 401:
        run.expect(response.get_body() == b"", "a refusal that says why")
        run.expect(response.headers.get("WWW-Authenticate") == "Bearer", "expected WWW-Authenticate: Bearer")
        return
    content = json.loads(response.get_body())
    if response.status_code >= 400:
        OperationOutcome(content, strict=True)
        run.expect(response.mimetype == "application/fhir+json", f"an OperationOutcome as {response.mimetype}")
    else:
        run.expect(content.get("status") in {"scored", "abstained"}, f"a success that is {content.get('status')}")
        run.expect((content.get("status") == "scored") == (content.get("score") is not None), "a score, or none")


async def check_repeat(run: Run, app: Any, upstream: Upstream, request: Mapping[str, Any], first: Any) -> None:
    """The same again: no second packet, no second write, and of what was an answer the same bytes."""

    async def state() -> tuple[int, int]:
        packets = await app.store.packets(model_id="hematocrit", after=None, limit=1000)
        assert all(packet.is_terminal for packet in packets)
        return len(packets), len({call.target for call in upstream.calls if call.route == "score"})

    packets, writes = await state()
    again = await app.infer(**request)
    run.answers.append(again)
    packets_after, writes_after = await state()
    run.expect(packets_after == packets, f"{packets_after} packets after the same request, {packets} before")
    healed = first.status_code >= 500 and again.status_code == 200
    due = {writes, writes + healed} if run.case.at_once > 1 else {writes + healed}
    run.expect(writes_after in due, f"{writes_after} writes after the same request, {writes} before")
    jobs = [call.target for call in upstream.calls if call.route == "score"]
    run.expect(len(set(jobs)) == len(jobs), "a score was written twice")
    if first.status_code < 500:
        run.expect(again.get_body() == first.get_body(), "another answer to the same request")


def check_tokens(run: Run, upstream: Upstream) -> None:
    """No FHIR call goes out with a token of another server or without one, unless it was withdrawn."""
    if run.case.steps or any(rule.route in {"token", "discovery"} or rule.status == 401 for rule in run.case.upstream):
        return
    bare = [
        call for call in upstream.calls if call.grant is None and call.route not in {"discovery", "token", "metadata"}
    ]
    run.expect(not bare, f"{len(bare)} calls without a token that this EMR gave")


def check_network(run: Run, watched: Watched, allowed: set[tuple[str, int]]) -> None:
    strangers = watched.connected - allowed
    run.expect(not strangers, f"connected to {len(strangers)} addresses that are not configured")
    names = watched.names - {host for host, _ in allowed}
    run.expect(not names, f"looked up names that are not configured: {', '.join(sorted(names))}")


def check_secrecy(run: Run, said: str) -> None:
    by_get = run.case.settings.get("DEPLOYR_EMR_SEARCH") == "get"
    calls = [call for upstream in run.upstreams for call in upstream.calls]
    surfaces = {
        "logs or standard output": said,
        "addresses": "" if by_get else "\n".join(call.target for call in calls),
        "sent headers": "\n".join(f"{call.headers}" for call in calls),
        "answers' headers": "\n".join(f"{dict(answer.headers)}" for answer in run.answers),
        "answers": "\n".join(answer.get_body().decode() for answer in run.answers),
    }
    for place, text in surfaces.items():
        for name, canary in CANARIES.items():
            run.expect(canary.lower() not in text.lower(), f"{name} in {place}")


async def check_published_keys(run: Run) -> None:
    if not run.case.jwks:
        return
    response = await run.apps[0].get("jwks")
    keys = json.loads(response.get_body())["keys"]
    named = sorted(filled_in(run.case.jwks, run.values))
    run.expect(sorted(key["kid"] for key in keys) == named, "other key ids are published")
    private = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
    run.expect(not any(private & set(key) for key in keys), "a private member is published")
    run.expect("max-age" in response.headers.get("Cache-Control", ""), "expected Cache-Control")
