"""``python -m mock_emr.population --out DIR``: writes DIR/omop and DIR/fhir for one synthetic population."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from mock_emr.population.config import PopulationConfig
from mock_emr.population.profiles import PROFILES
from mock_emr.population.shift import InfrastructureShift, read_shift, shift_of
from mock_emr.population.writing import write_population

_LISTS = ("other_units", "missing_elements")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both forms of the population that the arguments describe, and say how big it is."""
    parser = argparse.ArgumentParser(
        prog="python -m mock_emr.population", description="Write a synthetic hospital population."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that gets omop/ and fhir/")
    parser.add_argument("--profile", choices=tuple(PROFILES), default="plain", help="what to start from")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--patients", type=int)
    parser.add_argument("--weeks", type=int)
    parser.add_argument("--processes", type=int, default=1, help="blocks made at the same time")
    parser.add_argument("--shift", type=Path, help="YAML file of infrastructure shift, instead of the profile's")
    knobs = parser.add_argument_group("infrastructure shift", "one knob each, on top of the profile or the file")
    for field in fields(InfrastructureShift):
        several = " (several, with commas)" if field.name in _LISTS else ""
        knobs.add_argument(f"--{field.name.replace('_', '-')}", help=f"default {field.default!r}{several}")
    asked = vars(parser.parse_args(arguments))
    try:
        config = _asked(asked)
        if asked["processes"] < 1:
            raise ValueError(f"processes must be at least 1, got {asked['processes']}")
    except (ValueError, OSError) as refusal:
        parser.error(str(refusal))
    totals = write_population(config, asked["out"], processes=asked["processes"])
    sys.stdout.write(
        f"{totals.patients} patients, {totals.stays} stays, {totals.orders} laboratory orders and"
        f" {totals.results} results in {asked['out']}\n"
    )
    return 0


def _asked(asked: dict[str, object]) -> PopulationConfig:
    """Give the configuration that the arguments describe."""
    config = PROFILES[str(asked["profile"])]
    chosen = {name: asked[name] for name in ("seed", "patients", "weeks") if asked[name] is not None}
    shift = read_shift(asked["shift"]) if isinstance(asked["shift"], Path) else config.shift
    knobs = {field.name: asked[field.name] for field in fields(shift) if asked[field.name] is not None}
    for name in _LISTS:
        if name in knobs:
            knobs[name] = [one for one in str(knobs[name]).split(",") if one]
    return replace(config, **chosen, shift=shift_of(asdict(shift) | knobs))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
