"""Compares what came with what a row expects, and gives the differences. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from deployr_core.packet import InferencePacket
from tests.faults.bed.rows import Expect
from tests.faults.bed.upstream import Call

_STATUS = {"OK": 200, "AB": 200, "FS": 503, "RJ": 422, "A401": 401}
_KIND = {"OK": "scored", "AB": "abstained", "FS": "failed", "RJ": "rejected", "A401": "none"}


def not_as_expected(
    expected: Expect, response: Any, packets: list[InferencePacket], calls: list[Call], names: tuple[str, ...]
) -> list[str]:
    problems = []

    def expect(claim: bool, problem: str) -> None:
        if not claim:
            problems.append(problem)

    content = json.loads(response.get_body() or b"{}")
    reason = content.get("reason") or _reason_in(content)
    status = expected.status or _STATUS[expected.answer]
    expect(response.status_code == status, f"expected status {status}, got {response.status_code} {reason}")
    if expected.reasons:
        expect(reason in expected.reasons, f"expected the reason {' or '.join(expected.reasons)}, got {reason}")
    if expected.answer == "FS":
        expect(bool(response.headers.get("Retry-After")), "expected Retry-After")
    kind = expected.packet or _KIND[expected.answer]
    stored = [str(packet.outcome.__struct_config__.tag) for packet in packets]
    expect(stored == ([] if kind == "none" else [kind]), f"expected a packet {kind}, got {stored}")
    if kind not in {"none", "scored"} and packets:
        kept = getattr(packets[0].outcome, "reason", None)
        expect(kept == reason, f"expected the answer's reason {reason} in the packet, got {kept}")
    if packets and stored == ["scored"]:
        problems += _features_and_counts(expected, packets[0], names)
    for pattern, how_many in expected.calls.items():
        came = [call for call in calls if fnmatchcase(call.route, pattern.replace("?", "[?]"))]
        expect(_fits(len(came), how_many), f"expected {how_many} calls of {pattern}, got {len(came)}")
    for route, gap_s in expected.gap_s.items():
        first, second, *_ = [*(call.at for call in calls if call.route == route), 0.0, 0.0]
        expect(second - first >= gap_s, f"expected {gap_s} s between calls of {route}, got {second - first:.2f}")
    return problems


def _reason_in(outcome: Mapping[str, Any]) -> str | None:
    for issue in outcome.get("issue", ()):
        for coding in issue.get("details", {}).get("coding", ()):
            return str(coding.get("code"))
    return None


def _features_and_counts(expected: Expect, packet: InferencePacket, names: tuple[str, ...]) -> Iterator[str]:
    outcome: Any = packet.outcome
    features = {names[index]: value for index, value in zip(outcome.vector.indices, outcome.vector.values, strict=True)}
    for name, value in expected.features.items():
        assert name in names, f"no such feature: {name}"
        if abs(features.get(name, 0.0) - value) > 1e-9:
            yield f"expected {name} = {value}, got {features.get(name, 0.0)}"
    for pattern, how_many in expected.counts.items():
        count = sum(number for name, number in outcome.coverage.items() if fnmatchcase(name, pattern))
        if not _fits(count, how_many):
            yield f"expected {how_many} counted as {pattern}, got {count} in {sorted(outcome.coverage)}"


def _fits(count: int, how_many: int | str) -> bool:
    text = str(how_many)
    if text.startswith("<="):
        return count <= int(text[2:])
    return count >= int(text[2:]) if text.startswith(">=") else count == int(text)
