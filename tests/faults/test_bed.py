"""The runner notices what a row does not name: the invariants are not asserted in vain."""

from __future__ import annotations

import itertools
import logging

import pytest

from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.core import infer
from deployr_serve.triggers import operation_outcome
from tests.faults.__main__ import Tally
from tests.faults.bed.rows import Case, Expect, Rule, merged, read_row
from tests.faults.bed.runner import run_case
from tests.faults.bed.table import TITLES

HEALTHY = Case(name="healthy", expect=Expect(answer="OK"))
REFUSED = Case(name="refused", upstream=(Rule(route="Observation", status=410, json={}),), expect=Expect(answer="FS"))


async def test_nothing_is_wrong_with_the_healthy_patient(bed):
    assert await run_case(HEALTHY, bed) == []


async def test_a_score_that_is_sent_twice_is_noticed(bed, monkeypatch):
    send = ScoreColumn.send

    async def send_twice(self, *args, **kwargs):
        await send(self, *args, **kwargs)
        await send(self, *args, **kwargs)

    monkeypatch.setattr(ScoreColumn, "send", send_twice)
    assert "expected 1 writes, got 2" in await run_case(HEALTHY, bed)


async def test_a_repeat_that_is_not_recognised_is_noticed(bed, monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr(infer, "derive_packet_id", lambda *_, **__: f"p{next(numbers):032}")
    assert "2 packets after the same request, 1 before" in await run_case(HEALTHY, bed)


async def test_an_id_in_a_log_is_noticed(bed, monkeypatch):
    fetch = FhirSource.fetch

    async def chatty(self, subject, *args, **kwargs):
        logging.getLogger("deployr_serve.adapters.fhir_source").debug("fetching %s", subject.patient_id)
        return await fetch(self, subject, *args, **kwargs)

    monkeypatch.setattr(FhirSource, "fetch", chatty)
    assert await run_case(HEALTHY, bed) == ["patient id in logs or standard output"]


async def test_an_answer_without_its_reason_is_noticed(bed, monkeypatch):
    render = operation_outcome.render_operation_outcome

    def speechless(answer, *, reason, detail=None):
        return render(answer, reason="something", detail=detail)

    monkeypatch.setattr("deployr_serve.triggers.json_request.render_operation_outcome", speechless)
    assert "expected the answer's reason something in the packet, got emr-bad-response" in await run_case(REFUSED, bed)


@pytest.mark.parametrize(
    "written",
    [
        "{number: 1, title: t, channel: J, cases: [{name: n, expects: {answer: OK}}]}",
        "{number: 1, title: t, channel: J, cases: [{name: n, expect: {answer: Ok}}]}",
        "{number: 1, title: t, channel: J, cases: [{name: n, expect: {answer: OK}, upstream: [{rout: token}]}]}",
        "{number: 2, title: t, channel: J, cases: [{name: n, expect: {answer: OK}}]}",
        "{number: 1, title: t, channel: J, cases: [{name: n}]}",
    ],
)
def test_a_row_that_is_misspelt_is_refused(tmp_path, written):
    file = tmp_path / "001-row.yaml"
    file.write_text(written)
    with pytest.raises(ValueError, match="001-row"):
        read_row(file)


def test_the_count_leaves_out_rows_that_are_missing_or_that_fail_in_one_case():
    tally = Tally()
    for group, titles in TITLES.items():
        for number in titles:
            tally.cases[number] = {"one": True, "another": (group, number) != ("E", 75)}
    tally.cases[77].clear()
    rows = sum(map(len, TITLES.values()))
    assert tally.lines() == (
        [f"E  75 {TITLES['E'][75]}: 1 of 2 cases fail", f"E  77 {TITLES['E'][77]}: no case ran"],
        rows - 2,
    )


def test_a_patch_is_merged_into_the_chart_as_rfc_7396_says():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": {"f": None}}, "d": [2]}) == {
        "a": {"c": 2, "e": {}},
        "d": [2],
    }
