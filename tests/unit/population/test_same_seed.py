from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from mock_emr.population.__main__ import main
from mock_emr.population.columns import Population
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop

SMALL = PopulationConfig(seed=3, patients=8, weeks=2)


def _bytes_written(config: PopulationConfig, folder: Path) -> dict[str, bytes]:
    population = generate(config)
    write_omop(population, folder / "omop")
    write_fhir(population, folder / "fhir")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_same_configuration_gives_same_bytes(tmp_path: Path) -> None:
    first = _bytes_written(SMALL, tmp_path / "first")
    second = _bytes_written(SMALL, tmp_path / "elsewhere")

    assert first == second
    assert len(first) == 12 + 6


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    first = _bytes_written(SMALL, tmp_path / "first")
    other = _bytes_written(replace(SMALL, seed=4), tmp_path / "other")

    assert first["fhir/Patient.ndjson.gz"] != other["fhir/Patient.ndjson.gz"]
    assert first["omop/measurement.parquet"] != other["omop/measurement.parquet"]


def test_gzip_carries_neither_time_nor_name(tmp_path: Path) -> None:
    written = _bytes_written(SMALL, tmp_path)

    for name, content in written.items():
        if name.endswith(".gz"):
            # RFC 1952, 2.3: flags at byte 3 (bit 3 announces a name), modification time at 4 to 7.
            assert content[3] & 0b1000 == 0
            assert content[4:8] == b"\0\0\0\0"


def test_another_zone_moves_clocks_but_not_the_draw_of_people() -> None:
    here = generate(SMALL)
    there = generate(replace(SMALL, utc_offset=timedelta(hours=5)))

    np.testing.assert_array_equal(here.persons.illness, there.persons.illness)
    assert there.config.offset_text == "+05:00"


def test_command_writes_both_forms_and_says_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--out", str(tmp_path), "--seed", "3", "--patients", "8", "--weeks", "2"])

    assert code == 0
    assert capsys.readouterr().out.startswith("8 patients, ")
    assert {path.name for path in tmp_path.iterdir()} == {"omop", "fhir"}


def test_command_refuses_no_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--patients", "0"])

    assert "patients must be at least 1, got 0" in capsys.readouterr().err


def test_population_of_one_patient_and_one_week_can_be_made() -> None:
    population: Population = generate(PopulationConfig(seed=1, patients=1, weeks=1))

    assert len(population.persons) == 1
    assert len(population.stays) >= 1
