from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from mock_emr.scores import Feature, Row, Score, ScoreColumn, ScoreError, score_in

NOW = datetime(2015, 1, 6, 12, tzinfo=UTC)
FLAT: dict[str, Any] = {
    "EntityId": [{"ID": "42", "Type": "CSN"}],
    "ScoreDisplayed": "TestScore",
    "PredictiveContext": {},
    "OutputType": "5",
    "Outputs": {
        "Output1": {
            "Scores": {"Other": {"Values": ["1"]}, "TestScore": {"Values": ["95", "96"]}},
            "Features": {"f": {"Contributions": ["0.5"]}},
        }
    },
    "Raw": {"f": {"Values": ["1.0"]}},
}
ENVELOPE = {"exit_code": "0", "stdout": [""], "stderr": [""], "messages": ["done"]}


def test_both_bodies_ask_for_the_same() -> None:
    made_of = (Feature(name="f", contribution="0.5", values=("1.0",)),)
    expected = Score(csn="42", name="TestScore", value="95", features=made_of)
    assert score_in(msgspec.json.encode(FLAT)) == expected
    assert score_in(msgspec.json.encode({"result": {**ENVELOPE, "results": FLAT}})) == expected


def test_the_displayed_score_may_be_in_any_output_and_features_may_be_absent() -> None:
    body = {
        "EntityId": FLAT["EntityId"],
        "ScoreDisplayed": "b",
        "Outputs": {"1": {"Scores": {"a": {"Values": ["1"]}}}, "2": {"Scores": {"b": {"Values": ["2"]}}}},
    }
    assert score_in(msgspec.json.encode(body)).value == "2"


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        held: Any = body
        for step in path[:-1]:
            held = held[step]
        held[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_set("EntityId", to=[]), "EntityId"),
        (_set("EntityId", to={"ID": "42", "Type": "CSN"}), "EntityId"),
        (_set("EntityId", to=[{"ID": "42", "Type": "CSN"}] * 2), "EntityId"),
        (_set("EntityId", to=["42"]), "EntityId"),
        (_set("EntityId", 0, "Type", to="MRN"), "EntityId"),
        (_set("EntityId", 0, "ID", to=42), "EntityId"),
        (_set("EntityId", 0, "ID", to=""), "EntityId"),
        (_set("ScoreDisplayed", to="Missing"), "ScoreDisplayed"),
        (_set("ScoreDisplayed", to=None), "ScoreDisplayed"),
        (_set("Outputs", to={}), "ScoreDisplayed"),
        (_set("Outputs", to=None), "Outputs"),
        (_set("Outputs", "Output1", to=[]), "Outputs.Output1"),
        (_set("Outputs", "Output1", "Scores", to=None), "Outputs.Output1.Scores"),
        (_set("Outputs", "Output1", "Scores", "TestScore", to="95"), "Outputs.Output1.Scores.TestScore"),
        (_set("Outputs", "Output1", "Scores", "TestScore", "Values", to=[95]), "Scores.TestScore.Values"),
        (_set("Outputs", "Output1", "Scores", "TestScore", "Values", to="95"), "Scores.TestScore.Values"),
        (_set("Outputs", "Output1", "Scores", "TestScore", "Values", to=[]), "Outputs.Output1.Scores"),
        (_set("Outputs", "Output1", "Scores", "Other", "Values", to=[1.0]), "Scores.Other.Values"),
        (_set("Outputs", "Output1", "Features", "f", "Contributions", to=[0.5]), "Features.f.Contributions"),
        (_set("Raw", "f", "Values", to=[None]), "Raw.f.Values"),
    ],
)
def test_a_body_that_cannot_be_filed_is_refused_by_the_place_that_is_wrong(
    change: Callable[[dict[str, Any]], None], where: str
) -> None:
    body = copy.deepcopy(FLAT)
    change(body)
    with pytest.raises(ScoreError) as refused:
        score_in(msgspec.json.encode(body))
    assert where in str(refused.value)
    assert "42" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"result":[]}', b'{"result":{}}', b'{"result":{"results":1}}'])
def test_what_is_no_score_body_is_refused(body: bytes) -> None:
    with pytest.raises(ScoreError):
        score_in(body)


def test_a_job_is_filed_once_for_each_encounter_and_model() -> None:
    column = ScoreColumn()
    first, again = Score(csn="42", name="s", value="95"), Score(csn="42", name="s", value="96")
    assert column.file(first, model_id="m", job_id="j1", now=NOW)
    assert not column.file(again, model_id="m", job_id="j1", now=NOW)
    assert column.file(again, model_id="m", job_id="j2", now=NOW)
    assert column.file(first, model_id="other", job_id="j1", now=NOW)
    assert column.file(Score(csn="43", name="s", value="1"), model_id="m", job_id="j1", now=NOW)
    cell = column.cells()[0]
    assert (cell.model_id, cell.csn) == ("m", "42")
    assert cell.rows == (
        Row(job_id="j1", score="95", written_at=NOW),
        Row(job_id="j2", score="96", written_at=NOW),
    )
    assert len(column.cells()) == 3


def test_a_cell_holds_what_its_latest_score_is_made_of_and_the_oldest_cells_forget_it() -> None:
    column = ScoreColumn(features_kept=2)
    for csn, contribution in (("41", "1"), ("42", "2"), ("41", "3"), ("43", "4")):
        made_of = (Feature(name="f", contribution=contribution, values=("0",)),)
        score = Score(csn=csn, name="s", value="5", features=made_of)
        assert column.file(score, model_id="m", job_id=contribution, now=NOW)
    held = {cell.csn: [feature.contribution for feature in cell.features] for cell in column.cells()}
    # 42 was written longest ago.
    assert held == {"41": ["3"], "42": [], "43": ["4"]}
