"""What is written for seismometer: each score with its own outcome, and nothing whose outcome is not known."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_dash.parts import ExtractMissing
from deployr_dash.seismometer import NotForSeismometer, write_seismometer
from tests.unit.deployr_dash.made_up import NOW, packets, write_extract

_FEW = 300


@pytest.fixture
def frame():
    return packets(_FEW)


@pytest.fixture
def extract(tmp_path, frame):
    write_extract(tmp_path / "extract", frame)
    return tmp_path / "extract"


def test_each_score_is_written_with_the_outcome_that_its_own_packet_has(tmp_path, extract, frame):
    # Given
    is_known = frame["score"].notna() & (frame["label_kind"] == "observed")
    expected = frame.loc[is_known].set_index("row")

    # When
    written = write_seismometer(extract, tmp_path / "out", model="hematocrit")

    # Then
    predictions = pd.read_parquet(tmp_path / "out" / "data" / "predictions.parquet").set_index("row")
    events = pd.read_parquet(tmp_path / "out" / "data" / "events.parquet")
    outcomes = events[events["Type"] == "label"].set_index("row")["Value"]
    assert written.predictions == len(expected) == len(predictions) > 0
    assert written.left_out == int(frame["score"].notna().sum()) - len(expected) > 0
    assert predictions["score"].to_dict() == expected["score"].to_dict()
    assert outcomes.to_dict() == expected["label_value"].to_dict()
    shown = set(events.loc[events["Type"] == "shown", "row"])
    assert shown == set(expected.index[expected["shown_at"].notna()])


def test_an_outcome_that_came_early_is_left_out_until_it_is_ripe(tmp_path, frame):
    # Given: of the last three days only what happened is known yet.
    is_early = frame["score"].notna() & (frame["label_ripe_at"] > pd.Timestamp(NOW))
    early = frame.assign(
        label_kind=frame["label_kind"].astype(object).mask(is_early, "observed"),
        label_value=frame["label_value"].mask(is_early, 1.0),
    )
    write_extract(tmp_path / "extract", early)

    # When
    written = write_seismometer(tmp_path / "extract", tmp_path / "out", model="hematocrit")

    # Then
    predictions = pd.read_parquet(tmp_path / "out" / "data" / "predictions.parquet")
    assert is_early.sum() > 0
    assert set(predictions["row"]).isdisjoint(early.loc[is_early, "row"])
    assert written.left_out == int((early["score"].notna() & ((early["label_kind"] != "observed") | is_early)).sum())


def test_no_outcome_is_written_from_before_its_score(tmp_path, extract):
    write_seismometer(extract, tmp_path / "out", model="hematocrit")

    predictions = pd.read_parquet(tmp_path / "out" / "data" / "predictions.parquet").set_index("row")
    events = pd.read_parquet(tmp_path / "out" / "data" / "events.parquet")
    outcomes = events[events["Type"] == "label"].set_index("row")["EventTime"]
    assert (outcomes > predictions["as_of"]).all()


def test_all_that_is_named_is_there(tmp_path, extract):
    write_seismometer(extract, tmp_path / "out", model="hematocrit")

    folder = tmp_path / "out"
    info = yaml.safe_load((folder / "config.yml").read_text())["other_info"]
    usage = yaml.safe_load((folder / info["usage_config"]).read_text())["data_usage"]
    dictionary = yaml.safe_load((folder / info["prediction_definition"]).read_text())
    predictions = pd.read_parquet(folder / info["data_dir"] / info["prediction_path"])
    events = pd.read_parquet(folder / info["data_dir"] / info["event_path"])
    cohorts = [each["source"] for each in usage["cohorts"]]
    keys = [usage[each] for each in ("context_id", "entity_id", "predict_time", "primary_output")]
    assert sorted(predictions.columns) == sorted([*keys, *cohorts])
    assert [each["name"] for each in dictionary["predictions"]] == [*keys, *cohorts]
    assert usage["primary_target"] in [each["display_name"] for each in usage["events"]]
    assert set(events["Type"]) <= {each["source"] for each in usage["events"]}
    assert json.loads((folder / info["data_dir"] / info["metadata_path"]).read_text())["thresholds"] == [0.6]


def test_what_was_written_before_is_written_anew_and_other_folders_are_left_alone(tmp_path, extract):
    first = write_seismometer(extract, tmp_path / "out", model="hematocrit")

    assert write_seismometer(extract, tmp_path / "out", model="hematocrit") == first
    with pytest.raises(FileExistsError, match="expected an empty folder"):
        write_seismometer(extract, extract, model="hematocrit")


def test_where_there_is_nothing_to_show_nothing_is_written(tmp_path, frame):
    write_extract(tmp_path / "unlabelled", frame.assign(label_kind=None, label_value=float("nan")))

    with pytest.raises(NotForSeismometer, match="none is ripe yet"):
        write_seismometer(tmp_path / "unlabelled", tmp_path / "out", model="hematocrit")
    with pytest.raises(NotForSeismometer, match="expected packets of other"):
        write_seismometer(tmp_path / "unlabelled", tmp_path / "out", model="other")
    with pytest.raises(ExtractMissing):
        write_seismometer(tmp_path / "nowhere", tmp_path / "out", model="hematocrit")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_what_it_left_out(tmp_path, extract):
    run = CliRunner().invoke(
        app, ["monitor", "seismometer", "hematocrit", str(tmp_path / "out"), "--extract", str(extract)]
    )

    assert run.exit_code == 0
    assert "with a ripe outcome" in run.output
    assert "left out" in run.output
