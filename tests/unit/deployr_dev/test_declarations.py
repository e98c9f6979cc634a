"""The shipped declarations and their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deployr_core.features import DeclarationInvalid, LabGroup
from deployr_core.units import CANONICAL_SPELLING
from deployr_dev.cohorts.tasks import shipped_task, shipped_task_names
from deployr_dev.declarations.schema import schema_text
from deployr_dev.declarations.shipped import load_declaration, shipped_declaration, shipped_declaration_names

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "docs" / "feature-declaration.schema.json"


def shipped_json(name: str) -> Any:
    return json.loads((ROOT / "deployr_dev" / "declarations" / f"{name}.json").read_bytes())


def test_the_schema_in_the_docs_is_up_to_date():
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "write it anew: python -m deployr_dev.declarations.schema > docs/feature-declaration.schema.json"
    )


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("name", shipped_declaration_names())
def test_every_shipped_declaration_is_valid_by_the_schema_and_by_the_types(name: str):
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(shipped_json(name))
    # A form asks for two last results: there is nothing to be learned.
    assert shipped_declaration(name).is_fitted is (name == "bedside")


def test_the_schema_refuses_a_misspelt_key():
    wrong = shipped_json("hematocrit")
    wrong["groups"][4]["look_back_days"] = wrong["groups"][4].pop("lookback_days")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(schema_text())).validate(wrong)


@pytest.mark.parametrize("name", shipped_task_names())
def test_every_shipped_task_starts_from_a_shipped_declaration(name: str):
    assert shipped_task(name).declaration in shipped_declaration_names()


def test_the_predicted_test_itself_is_among_the_features():
    groups = [group for group in shipped_declaration("hematocrit").groups if isinstance(group, LabGroup)]

    assert [len(group.analytes) for group in groups] == [21, 21]
    assert all("4544-3" in {analyte.code for analyte in group.analytes} for group in groups)


def test_every_declared_unit_has_a_reviewed_spelling():
    groups = [group for group in shipped_declaration("hematocrit").groups if isinstance(group, LabGroup)]

    assert {analyte.unit for group in groups for analyte in group.analytes} <= set(CANONICAL_SPELLING.values())


def test_an_unknown_declaration_is_refused_with_those_that_there_are():
    with pytest.raises(DeclarationInvalid, match="hematocrit"):
        shipped_declaration("sodium")


def test_a_declaration_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path):
    with pytest.raises(DeclarationInvalid, match=r"absent\.json: cannot be read"):
        load_declaration(tmp_path / "absent.json")
    (tmp_path / "d.json").write_text('{"schema_version": 1, "groups": [], "grops": []}')
    with pytest.raises(DeclarationInvalid, match=r"d\.json: .*grops"):
        load_declaration(tmp_path / "d.json")
