"""Real, de-identified ICU patients; their licence keeps them out of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def eicu() -> Path:
    """Give the folder with ``omop/`` and ``fhir/`` of the same 100 patients."""
    folder = Path(__file__).parents[4] / "shared" / "data" / "eicu-demo-paired"
    if not (folder / "omop").is_dir():
        pytest.skip("needs ../shared/data/eicu-demo-paired, which is not shipped (ODbL)")
    return folder
