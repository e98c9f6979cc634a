"""What an alert's document costs: read, checked and answered, and refused where it is a bomb."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measured import Measured
from deployr_core.packet import Decision, InferencePacket, Mode, ModelRef, Scored, StoredVector, Subject, Trigger
from deployr_core.reasons import Reason
from deployr_serve.core.errors import ServeError
from deployr_serve.core.policy import Advisory, CodedReason, Policy
from deployr_serve.triggers.bpa_answer import Answers
from deployr_serve.triggers.bpa_envelope import wrap
from deployr_serve.triggers.bpa_request import BpaReader, Paths, bpa_reader, open_document, read_document

EXAMPLE = Path(__file__).parents[1] / "docs" / "bpa-request.xml"
ROUNDS = 500
SIZE = 30_000
_GOAL_MS, _GOAL_REFUSED_MS, _GOAL_REFUSED_MB = 2.0, 50.0, 50.0
_NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)


def alerts() -> list[Measured]:
    """Time a document of 30 KB there and back, and every bomb; memory is that of a process that only refuses."""
    document, reader, answers = document_of(SIZE), _reader(), Answers()
    for _ in range(20):
        _there_and_back(document, reader, answers)
    took_ms = sorted(_there_and_back(document, reader, answers) for _ in range(ROUNDS))
    slowest_ms = max(min(_refused_ms(bomb, reader) for _ in range(3)) for bomb in bombs().values())
    out = subprocess.run([sys.executable, "-m", "benchmarks.bpa"], capture_output=True, text=True, check=True)
    return [
        _at_most("alert, 30 KB of CDA read and answered, p50", statistics.median(took_ms), "ms", _GOAL_MS),
        _at_most("alert, 30 KB of CDA read and answered, p95", took_ms[int(0.95 * ROUNDS)], "ms", _GOAL_MS),
        _at_most("alert, the slowest bomb refused", slowest_ms, "ms", _GOAL_REFUSED_MS),
        _at_most("alert, memory that all bombs take", float(out.stdout), "MB", _GOAL_REFUSED_MB),
    ]


def document_of(size: int) -> bytes:
    """Give the example with narrative and results until it has so many bytes."""
    row = (
        "<tr><td>Hematocrit</td><td>30 %</td></tr>",
        '<entry><observation classCode="OBS" moodCode="EVN"><code code="4544-3" codeSystem="2.16.840.1.113883.6.1"/>'
        '<value xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="PQ" value="30" unit="%"/>'
        "</observation></entry>",
    )
    text = EXAMPLE.read_text(encoding="utf-8")
    before, after = text.split("      <component>\n        <section>", maxsplit=1)
    count = (size - len(text.encode())) // len("".join(row)) + 1
    section = f"<component><section><text><table>{row[0] * count}</table></text>{row[1] * count}</section></component>"
    return f"{before}{section}<component><section>{after}".encode()


def bombs() -> Mapping[str, bytes]:
    """Give documents that are made to cost, each of up to 1 MB."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return {
        "entities": f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><a>&e9;</a>'.encode(),
        "elements": b"<r>" + b"<a/>" * 59_000 + b"</r>",
        "more elements": b"<r>" + b"<a/>" * 249_000 + b"</r>",
        "attributes": b"<a " + b" ".join(b'a%d=""' % number for number in range(59_000)) + b"/>",
        "namespaces": b"<a " + b" ".join(b'xmlns:a%d="u%d"' % (number, number) for number in range(40_000)) + b"/>",
        "depth": b"<a>" * 29_000 + b"</a>" * 29_000,
        "comments": b"<!---->" * 59_000 + b"<r/>",
        "references": b"<a>" + b"&#65;" * 190_000 + b"</a>",
        "one name": b"<" + b"a" * 900_000 + b"/>",
        "one text": b"<a>" + b"x" * 20_000_000 + b"</a>",
    }


def _there_and_back(document: bytes, reader: BpaReader, answers: Answers) -> float:
    started = time.perf_counter()
    root, wrapping = open_document(document, content_type="application/xml", content_encoding=None)
    read = read_document(root, wrapping, reader)
    wrap(answers.advice(_PACKET, _POLICY, because=_BECAUSE), wrapping)
    took_ms = (time.perf_counter() - started) * 1000
    assert read.event_time == _NOW
    return took_ms


def _refused_ms(bomb: bytes, reader: BpaReader) -> float:
    started = time.perf_counter()
    try:
        root, wrapping = open_document(bomb, content_type="application/xml", content_encoding=None)
        read_document(root, wrapping, reader)
    except ServeError:
        return (time.perf_counter() - started) * 1000
    raise AssertionError("expected every bomb to be refused")


def _reader() -> BpaReader:
    roots = {f"2.16.840.1.113883.19.{last}": "FHIR" for last in (1, 3, 5)}
    return bpa_reader(roots=roots, zone=None, paths=Paths())


def _at_most(name: str, value: float, unit: str, goal: float) -> Measured:
    return Measured(
        name=name,
        value=round(value, 3),
        unit=unit,
        baseline=None,
        ratio=None,
        goal=f"<= {goal:g} {unit}",
        met=value <= goal,
    )


_PACKET = InferencePacket(
    packet_id="p" + 32 * "0",
    site="bench",
    environment="BENCH",
    model=ModelRef(model_id="hematocrit", version="1.0.0", bundle_sha256="b" * 64),
    trigger=Trigger(channel="bpa", correlation_id="c", request_sha256="a" * 64, received_at=_NOW, event_time=_NOW),
    subject=Subject(patient_id="p1"),
    as_of=_NOW,
    outcome=Scored(
        score=0.75,
        vector=StoredVector(spec_sha256="5" * 64, size=1, indices=(), values=()),
        coverage={},
        entity_id=None,
        decision=Decision(mode=Mode.LIVE, advise=True, why="advised", policy_sha256="c" * 64, threshold=0.5),
    ),
    started_at=_NOW,
    updated_at=_NOW,
)
_POLICY = Policy(
    schema_version=1,
    model="hematocrit",
    mode=Mode.LIVE,
    threshold=0.5,
    advisory=Advisory(
        headline="Likely normal: {score_percent}",
        detail="The last result is likely to stand.",
        acknowledge_reasons=(CodedReason(code="sicker", display="The patient's state has changed"),),
    ),
)
_BECAUSE = tuple(Reason(concept=f"concept {n}", value=0.1 / n, text="Hematocrit: last 30 %") for n in (1, 2, 3))


def _memory_mb(field: str) -> float:
    """Read this process's memory as Linux counts it: ``VmRSS`` is held now, ``VmHWM`` was held at most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) / 1024


def _peak_of(bomb: bytes, reader: BpaReader) -> float:
    """Give by how many MB refusing a bomb raises the memory at its peak; the bomb itself is the host's."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _memory_mb("VmRSS")
    _refused_ms(bomb, reader)
    return _memory_mb("VmHWM") - before


if __name__ == "__main__":
    open_document(document_of(SIZE), content_type="application/xml", content_encoding=None)
    print(max(_peak_of(each, _reader()) for each in bombs().values()))
