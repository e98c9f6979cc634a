"""``python -m mock_emr.population --out DIR``: writes DIR/omop and DIR/fhir for one synthetic population."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both forms of the population that the arguments describe, and say how big it is."""
    default = PopulationConfig()
    parser = argparse.ArgumentParser(
        prog="python -m mock_emr.population", description="Write a synthetic hospital population."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that gets omop/ and fhir/")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--patients", type=int, default=default.patients)
    parser.add_argument("--weeks", type=int, default=default.weeks)
    asked = parser.parse_args(arguments)
    try:
        config = PopulationConfig(seed=asked.seed, patients=asked.patients, weeks=asked.weeks)
    except ValueError as refusal:
        parser.error(str(refusal))
    population = generate(config)
    write_omop(population, asked.out / "omop")
    write_fhir(population, asked.out / "fhir")
    sys.stdout.write(
        f"{len(population.persons)} patients, {len(population.stays)} stays, {len(population.orders)} laboratory"
        f" orders and {len(population.results)} results in {asked.out}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
