import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mock_emr.population.columns import Population
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop


@pytest.fixture(scope="session")
def config() -> PopulationConfig:
    """Big enough shares of every oddity that a small population holds some of each."""
    return PopulationConfig(
        seed=7, patients=60, weeks=4, cancelled_share=0.05, corrected_share=0.03, rangeless_share=0.03
    )


@pytest.fixture(scope="session")
def population(config: PopulationConfig) -> Population:
    return generate(config)


@pytest.fixture(scope="session")
def omop(population: Population, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The extract as it stands on disk: table name to rows."""
    folder = tmp_path_factory.mktemp("omop")
    write_omop(population, folder)
    return {path.stem: pq.read_table(path).to_pylist() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def fhir(population: Population, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The resources as they stand on disk: resource type to resources."""
    folder: Path = tmp_path_factory.mktemp("fhir")
    write_fhir(population, folder)
    return {
        path.name.removesuffix(".ndjson.gz"): [
            json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()
        ]
        for path in folder.iterdir()
    }


@pytest.fixture(scope="session")
def hospital() -> Population:
    """The default population: 400 patients, ten weeks."""
    return generate(PopulationConfig())
