"""The file of what a site's vendor interfaces call things is checked before anything relies on it."""

from __future__ import annotations

import json

import pytest

from deployr_core.features import LabGroup, VitalGroup, parse_feature_spec
from deployr_serve.adapters.epic_components import SHIPPED, read_vendor_codes


@pytest.fixture
def file_of(tmp_path):
    """Give a function that writes the shipped file with changes."""

    def make(**changes):
        path = tmp_path / "components.json"
        path.write_text(json.dumps({**json.loads(SHIPPED.read_text()), **changes}))
        return path

    return make


def component(base_name, **more):
    return {"base_name": base_name, "code": "4544-3", **more}


def test_the_shipped_file_has_all_components_of_the_shipped_declarations():
    codes = read_vendor_codes(SHIPPED)
    folder = SHIPPED.parents[2] / "deployr_dev" / "declarations"
    groups = [
        group
        for name in ("hematocrit.json", "inpatient.json")
        for group in parse_feature_spec((folder / name).read_bytes()).groups
        if isinstance(group, LabGroup | VitalGroup)
    ]
    assert len(groups) == 5
    assert all(codes.knows_all_of(group) for group in groups)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"components": [component("HCT"), component("hct")]}, "HCT"),
        ({"components": [component("HCT"), component("X", ids=["HCT"])]}, "HCT"),
        ({"components": [component("HCT", units="%")]}, "units"),
        ({"components": [{"base_name": "HCT"}]}, "code"),
        ({"flowsheet_rows": [{"id": "5", "codes": []}]}, "one code"),
        ({"flowsheet_rows": [{"id": "5", "codes": ["1", "2", "3"]}]}, "one code"),
        ({"flowsheet_rows": [{"id": "5", "codes": ["1"]}] * 2}, "'5'"),
        ({"most_results": 0}, "most_results"),
        ({"componets": []}, "componets"),
    ],
)
def test_a_file_that_is_not_what_it_must_be_is_refused_by_the_place(file_of, changes, says):
    with pytest.raises(ValueError) as raised:
        read_vendor_codes(file_of(**changes))
    assert says in str(raised.value)


def test_a_file_that_is_no_json_or_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "bad").write_bytes(b"components:")
    for name in ("bad", "missing"):
        with pytest.raises(ValueError, match="expected a file"):
            read_vendor_codes(tmp_path / name)


def test_a_unit_is_written_in_ucum():
    codes = read_vendor_codes(SHIPPED)
    assert codes.unit_of("mmHg", "") == "mm[Hg]"
    assert codes.unit_of("g/dL", "%") == "g/dL"
    assert codes.unit_of(None, "%") == "%"
