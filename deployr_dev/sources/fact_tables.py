"""The fact tables: their columns and what may stand in them. docs/fact-tables.md says what they mean.

``orders`` has two columns more than the contract, both NULL where a source does not know: ``collected_at`` and
``resulted_at``, when the order's specimen was taken and its result released.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from deployr_core.facts import DiagnosisList, Sex

_CODED = {"person_id": "BIGINT", "fact_id": "VARCHAR", "system": "VARCHAR", "code": "VARCHAR"}
_DATED = {"happened_at": "TIMESTAMP", "known_at": "TIMESTAMP"}
_MEASURED = {"value": "DOUBLE", "unit": "VARCHAR"}

FACT_TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "persons": {
            "person_id": "BIGINT",
            "source_value": "VARCHAR",
            "birth_year": "INTEGER",
            "birth_month": "INTEGER",
            "birth_day": "INTEGER",
            "sex": "VARCHAR",
        },
        "person_categories": {"person_id": "BIGINT", "kind": "VARCHAR", "system": "VARCHAR", "code": "VARCHAR"},
        "labs": {
            **_CODED,
            **_MEASURED,
            "reference_low": "DOUBLE",
            "reference_high": "DOUBLE",
            "abnormal": "BOOLEAN",
            "order_id": "VARCHAR",
            **_DATED,
        },
        "vitals": {**_CODED, **_MEASURED, **_DATED},
        "diagnoses": {**_CODED, "recorded_in": "VARCHAR", **_DATED},
        "medications": {**_CODED, **_DATED},
        "procedures": {**_CODED, **_DATED},
        "orders": {
            **_CODED,
            "visit_id": "VARCHAR",
            "cancelled": "BOOLEAN",
            **_DATED,
            "collected_at": "TIMESTAMP",
            "resulted_at": "TIMESTAMP",
        },
        "visits": {**_CODED, "ended_at": "TIMESTAMP", "discharged_to": "VARCHAR", **_DATED},
        "deaths": {"person_id": "BIGINT", **_DATED},
    }
)
"""Each table's columns in their order, with DuckDB's types."""

MAY_BE_LEFT_OUT: Mapping[str, frozenset[str]] = MappingProxyType(
    {"orders": frozenset({"collected_at", "resulted_at"}), "labs": frozenset({"abnormal"})}
)
"""Columns that a mapping's SELECT need not have; they are NULL then."""

CLOSED_COLUMNS: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("persons", "sex"): frozenset(Sex),
        ("person_categories", "kind"): frozenset({"race", "ethnicity"}),
        ("diagnoses", "recorded_in"): frozenset(DiagnosisList),
    }
)
"""Columns in which only these texts may stand."""

DATED_TABLES = tuple(name for name, columns in FACT_TABLES.items() if "happened_at" in columns)
CODED_TABLES = tuple(name for name in DATED_TABLES if "code" in FACT_TABLES[name])
MEASURED_TABLES = ("labs", "vitals")
