"""What every page of a report is made with: templates, and files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import jinja2

from deployr_dev.evaluation import words
from deployr_dev.evaluation.making import figure_name
from deployr_dev.evaluation.plain_records import PlainEvaluation
from deployr_dev.evaluation.records import AtThreshold, Given, GroupFigures, Measured


@cache
def templates() -> jinja2.Environment:
    """Give the pages' templates, with the filters and tests that they use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deployr_dev.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": words.figure,
        "percent": words.percent,
        "number": words.number,
        "count": words.count,
        "of": words.of,
        "choice": words.choice,
        "figure_name": figure_name,
        "known_within": words.known_within,
    }
    environment.tests |= {
        "measured": lambda shown: isinstance(shown, Measured),
        "at_threshold": lambda shown: isinstance(shown, AtThreshold),
        "given": lambda shown: isinstance(shown, Given),
        "plain": lambda shown: isinstance(shown, PlainEvaluation),
        "group_figures": lambda shown: isinstance(shown, GroupFigures),
    }
    return environment


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the path first: whoever opens it finds the old file or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
