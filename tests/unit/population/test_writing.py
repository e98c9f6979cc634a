"""A population of several blocks is written the same whatever makes the blocks, and is what its blocks are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mock_emr.population.__main__ import main
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import BLOCK, blocks, generate, generate_block
from mock_emr.population.omop import write_omop
from mock_emr.population.profiles import PROFILES, at_week
from mock_emr.population.writing import write_population

SMALL = PopulationConfig(seed=3, patients=8, weeks=2)
TWO_BLOCKS = PopulationConfig(seed=3, patients=BLOCK + 20, weeks=1)


def _written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_one_block_is_written_as_its_two_writers_write_it(tmp_path: Path) -> None:
    write_omop(generate(SMALL), tmp_path / "apart" / "omop")
    write_fhir(generate(SMALL), tmp_path / "apart" / "fhir")
    write_population(SMALL, tmp_path / "together")

    assert _written(tmp_path / "together") == _written(tmp_path / "apart")


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    one = write_population(TWO_BLOCKS, tmp_path / "one")
    two = write_population(TWO_BLOCKS, tmp_path / "two", processes=2)

    assert one == two
    assert _written(tmp_path / "one") == _written(tmp_path / "two")
    assert pq.read_metadata(tmp_path / "one" / "omop" / "person.parquet").num_rows == BLOCK + 20
    for table, key in (("measurement", "measurement_id"), ("visit_occurrence", "visit_source_value")):
        ids = pq.read_table(tmp_path / "one" / "omop" / f"{table}.parquet", columns=[key])[key].to_pylist()
        assert len(ids) == len(set(ids))
    assert pq.read_metadata(tmp_path / "one" / "omop" / "care_site.parquet").num_rows == 5


def test_a_block_does_not_depend_on_the_blocks_after_it() -> None:
    more = replace(TWO_BLOCKS, patients=2 * BLOCK)

    np.testing.assert_array_equal(generate_block(TWO_BLOCKS, 0).results.value, generate_block(more, 0).results.value)


def test_blocks_hold_other_patients_of_other_numbers() -> None:
    first, second = blocks(TWO_BLOCKS)

    assert len(second.persons) == 20
    assert not np.isin(second.persons.person_id, first.persons.person_id).any()
    assert not np.array_equal(second.persons.illness, first.persons.illness[:20])


def test_more_than_a_block_is_not_made_at_once() -> None:
    with pytest.raises(ValueError, match="use write_population"):
        generate(TWO_BLOCKS)


def test_nothing_is_left_of_the_blocks(tmp_path: Path) -> None:
    write_population(SMALL, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"omop", "fhir"}


def test_command_writes_a_profile_with_a_knob(tmp_path: Path) -> None:
    file = tmp_path / "shift.yaml"
    file.write_text("other_units: [Creatinine]\nlate_share: 0.1\n")

    arguments = ["--patients", "5", "--weeks", "20", "--profile", "hospital", "--shift", str(file)]
    assert main(["--out", str(tmp_path / "out"), *arguments, "--units-side", "omop", "--other-units", "Glucose"]) == 0
    told = pq.read_table(tmp_path / "out" / "omop" / "measurement.parquet").to_pylist()

    assert {row["unit_source_value"] for row in told if row["measurement_source_value"] == "2345-7"} == {"mmol/L"}
    assert {row["unit_source_value"] for row in told if row["measurement_source_value"] == "2160-0"} == {"mg/dL"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--late-share", "2"], "late_share must be in [0, 1]"),
        (["--late-share", "much"], "late_share"),
        (["--other-units", "Unobtainium"], "other_units must be of"),
        (["--processes", "0"], "processes must be at least 1"),
    ],
)
def test_command_says_what_a_knob_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *arguments])

    assert said in capsys.readouterr().err


def test_what_changes_in_time_changes_for_the_last_weeks() -> None:
    config = PROFILES["shifted"]

    assert config.week_start(config.shift.drift_from_week) == config.end_instant - np.timedelta64(35, "D")
    assert config.week_start(config.shift.analyser_from_week) == config.week_start(config.weeks - 5)
    assert config.week_start(-10_000) == config.start_instant
    assert (at_week(config, 7).shift.drift_from_week, at_week(config, 7).shift.analyser_from_week) == (7, 7)
    assert PROFILES["plain"].shift == PROFILES["hospital"].shift == PopulationConfig().shift
