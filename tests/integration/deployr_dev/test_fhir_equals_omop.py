"""Real patients, exported twice: the facts of the Bulk FHIR folder are those of the OMOP tables, one by one.

What differs is what the data set itself says in one of the two alone: FHIR has the laboratory's flag (N, H, L), OMOP
has no column for it; and ids carry a prefix in FHIR.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployr_core.facts import Lab
from deployr_core.labels import is_abnormal
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.fact_tables import FACT_TABLES

pytestmark = pytest.mark.slow

ONLY_IN_ONE = {"labs": {"abnormal"}, "orders": {"collected_at", "resulted_at"}}
"""The flag, and when an order was drawn and resulted, for which a ServiceRequest has no element."""
IDS = {"fact_id", "order_id", "visit_id"}


@pytest.fixture(scope="module")
def omop(eicu: Path) -> Iterator[Extract]:
    with Extract.open(eicu / "omop") as opened:
        yield opened


@pytest.fixture(scope="module")
def fhir(eicu: Path) -> Iterator[Extract]:
    with Extract.open(eicu / "fhir") as opened:
        yield opened


def rows(extract: Extract, table: str) -> list[tuple[Any, ...]]:
    """Give a fact table with persons called by their identifier and ids without FHIR's prefix, sorted."""
    columns = [
        rf"regexp_replace(f.{column}, '^eicu-[a-z]+-', '')" if column in IDS else f"f.{column}"
        for column in FACT_TABLES[table]
        if column != "person_id" and column not in ONLY_IN_ONE.get(table, ())
    ]
    selected = ", ".join(["p.source_value", *columns])
    query = f"SELECT {selected} FROM {table} AS f JOIN persons AS p USING (person_id) ORDER BY ALL"  # noqa: S608 — our names
    return extract.connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("persons", 100),
        ("person_categories", 97),
        ("labs", 14704),
        ("diagnoses", 861),
        ("medications", 4674),
        ("orders", 3676),
        ("visits", 144),
        ("vitals", 0),
        ("procedures", 0),
        ("deaths", 0),
    ],
)
def test_every_row_of_the_table_is_the_same(omop: Extract, fhir: Extract, table: str, count: int):
    in_omop = rows(omop, table)

    assert len(in_omop) == count
    assert rows(fhir, table) == in_omop


def test_the_flag_that_only_fhir_has_says_what_the_range_says(fhir: Extract):
    flagged = [lab for patient in fhir.patients() for lab in patient.labs if lab.abnormal is not None]

    def by_range(lab: Lab) -> bool | None:
        return is_abnormal(Lab(**{name: getattr(lab, name) for name in lab.__struct_fields__ if name != "abnormal"}))

    assert len(flagged) > 10_000
    assert all(by_range(lab) == lab.abnormal for lab in flagged)


def test_nothing_of_the_export_is_left_out(fhir: Extract):
    assert (fhir.mapping.name, fhir.left_out) == ("fhir_ndjson", {})
