"""The set engine's query in each dialect: kept as text, so that a change in it is seen, and parsed back in its dialect.

To take a change over: DEPLOYR_WRITE_SNAPSHOTS=1 make test, then read the diff.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlglot

from deployr_core.codes import ICD10CM, LOINC, RXNORM, Code
from deployr_core.declared import Analyte, CountKind, EdgeBins, FixedCodes, PrefixGrouping, Statistic
from deployr_core.facts import DiagnosisList
from deployr_core.features import (
    AgeGroup,
    DiagnosisGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    RaceGroup,
    SexGroup,
)
from deployr_dev.lookups import Instant
from deployr_dev.warehouse import DIALECTS, say, warehouse_query

SNAPSHOTS = Path(__file__).parent / "snapshots"
ROW = Instant(row_id=1, person_id=1, as_of=datetime(2024, 2, 29, 12, tzinfo=UTC))
SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        AgeGroup(bins=EdgeBins(edges=(18, 65))),
        SexGroup(),
        RaceGroup(categories=("2106-3",)),
        DiagnosisGroup(
            name="problems",
            systems=(ICD10CM,),
            codes=FixedCodes(codes=(Code(ICD10CM, "I48"),)),
            grouping=PrefixGrouping(length=3),
            recorded_in=(DiagnosisList.PROBLEM_LIST,),
            lookback_days=365,
        ),
        MedicationGroup(
            name="drugs",
            systems=(RXNORM,),
            codes=FixedCodes(codes=(Code(RXNORM, "310325"),), weights=(1.5,)),
            lookback_days=28,
            count=CountKind.TFIDF,
        ),
        LabGroup(
            name="labs",
            analytes=(
                Analyte(
                    system=LOINC,
                    code="4544-3",
                    name="Hematocrit",
                    unit="%",
                    also=(Code(LOINC, "20570-8"),),
                    bins=EdgeBins(edges=(35, 45)),
                ),
            ),
            statistics=tuple(Statistic),
            lookback_days=14,
        ),
    ),
)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_query_is_as_it_was_read_and_its_dialect_can_parse_it(dialect: str) -> None:
    sql = warehouse_query(SPEC, [ROW], dialect=dialect).sql
    snapshot = SNAPSHOTS / f"{dialect}.sql"
    if os.environ.get("DEPLOYR_WRITE_SNAPSHOTS"):
        snapshot.write_text(sql + "\n", encoding="utf-8")

    assert sql + "\n" == snapshot.read_text(encoding="utf-8")
    parsed = sqlglot.parse_one(sql, read=dialect)
    assert isinstance(parsed, sqlglot.exp.Select)
    assert {table.name for table in parsed.find_all(sqlglot.exp.Table)} >= {"cohort", "labs", "persons"}


def test_the_query_says_no_patient_and_no_instant() -> None:
    query = warehouse_query(SPEC, [Instant(row_id=991, person_id=88_123_456, as_of=ROW.as_of)])

    assert "88123456" not in query.sql
    assert "2024" not in query.sql
    assert query.tables["cohort"]["person_id"].to_pylist() == [88_123_456]


def test_an_unknown_dialect_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="dialect of duckdb, postgres"):
        say("SELECT 1", dialect="cobol")


def test_a_naive_instant_in_the_cohort_is_refused() -> None:
    with pytest.raises(ValueError, match="aware instants"):
        warehouse_query(SPEC, [Instant(row_id=1, person_id=1, as_of=ROW.as_of.replace(tzinfo=None))])


def test_ages_are_counted_on_the_utc_day_and_windows_start_lookback_days_before() -> None:
    cohort = warehouse_query(SPEC, [ROW]).tables["cohort"].to_pylist()

    assert cohort == [
        {
            "row_id": 1,
            "person_id": 1,
            "as_of": datetime(2024, 2, 29, 12),  # noqa: DTZ001 UTC without saying so, as the fact tables hold it
            "as_of_year": 2024,
            "as_of_day": 229,
            "since_14_days": datetime(2024, 2, 15, 12),  # noqa: DTZ001
            "since_28_days": datetime(2024, 2, 1, 12),  # noqa: DTZ001
            "since_365_days": datetime(2023, 3, 1, 12),  # noqa: DTZ001
        }
    ]
