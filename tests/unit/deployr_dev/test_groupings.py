"""Mapping files: what is read, and what is refused with its line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployr_core.codes import ICD10CM, OMB_RACE_ETHNICITY
from deployr_core.declared import MappedCode, MappedCodes, MappingFile
from deployr_core.features import DeclarationInvalid, FeatureSpec, parse_feature_spec
from deployr_dev.declarations.shipped import load_declaration
from deployr_dev.groupings import MappingFileInvalid, read_mapping, resolve_mappings

HEADER = "system,code,group\n"
CCS = MappingFile(name="ccs", path="ccs.csv")
FILE = {"kind": "mapping-file", "name": "ccs", "path": "ccs.csv"}
Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes ``ccs.csv`` and gives the folder."""

    def write(content: str | bytes) -> Path:
        (tmp_path / "ccs.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write


def lines(mapping: MappedCodes) -> list[tuple[str, str, str]]:
    return [tuple(line) for line in mapping.codes]


def a_diagnosis_group(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "diagnoses",
        "name": "problems",
        "recorded_in": ["problem-list-item"],
        "systems": [ICD10CM],
        "codes": {"kind": "learned"},
        "lookback_days": 7,
        "grouping": FILE,
        **changes,
    }


def spec_of(*groups: dict[str, Any]) -> FeatureSpec:
    return parse_feature_spec(json.dumps({"schema_version": 1, "groups": groups}))


# What is read


def test_a_mapping_is_read_with_its_name_and_the_digest_of_the_file(write: Write):
    content = HEADER + "s,I48.0,af\ns,E11.9,dm\n"

    assert read_mapping(CCS, beside=write(content)) == MappedCodes(
        name="ccs",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        codes=(MappedCode("s", "E11.9", "dm"), MappedCode("s", "I48.0", "af")),
    )


def test_the_order_of_the_lines_changes_nothing_but_the_digest_of_the_file(write: Write):
    one = read_mapping(CCS, beside=write(HEADER + "s,A,x\nr,B,y\n"))
    other = read_mapping(CCS, beside=write(HEADER + "r,B,y\ns,A,x\n"))

    assert one.codes == other.codes == (MappedCode("r", "B", "y"), MappedCode("s", "A", "x"))
    assert one.sha256 != other.sha256


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("system,code,group\r\ns,I48.0,af\r\n", id="lines as Windows ends them"),
        pytest.param("\ufeffsystem,code,group\ns,I48.0,af\n", id="a byte order mark"),
        pytest.param("system,code,group\ns,I48.0,af", id="no end of the last line"),
        pytest.param("system,code,group\n s , I48.0 ,\taf \n", id="space around"),
        pytest.param("system,code,group\n\ns,I48.0,af\n\n", id="empty lines"),
        pytest.param('system,code,group\n"s","I48.0","af"\n', id="quotes"),
        pytest.param("system,code,group\ns,I48.0,af\ns,I48.0,af\n", id="the same line again"),
    ],
)
def test_a_mapping_reads_the_same_however_it_is_spelt(content: str, write: Write):
    assert lines(read_mapping(CCS, beside=write(content))) == [("s", "I48.0", "af")]


def test_quoted_commas_and_letters_of_any_script_belong_to_the_group(write: Write):
    mapping = read_mapping(CCS, beside=write(HEADER + 's,A,"heart, arrhythmia"\ns,B,Fièvre\n'))

    assert lines(mapping) == [("s", "A", "heart, arrhythmia"), ("s", "B", "Fièvre")]


def test_the_same_code_of_two_systems_may_be_in_two_groups(write: Write):
    mapping = read_mapping(CCS, beside=write(HEADER + "s,A,x\nt,A,y\n"))

    assert lines(mapping) == [("s", "A", "x"), ("t", "A", "y")]


def test_codes_that_differ_in_case_or_dots_are_two_codes(write: Write):
    mapping = read_mapping(CCS, beside=write(HEADER + "s,I48.0,x\ns,I480,y\ns,i48.0,z\n"))

    assert len(mapping.codes) == 3


def test_a_relative_path_starts_beside_the_declaration_and_an_absolute_one_does_not(write: Write, tmp_path: Path):
    beside = write(HEADER + "s,A,x\n")
    (beside / "declarations").mkdir()

    relative = read_mapping(MappingFile(name="ccs", path="../ccs.csv"), beside=beside / "declarations")
    absolute = read_mapping(MappingFile(name="ccs", path=str(beside / "ccs.csv")), beside=tmp_path / "elsewhere")

    assert relative == absolute == read_mapping(CCS, beside=beside)


# What is refused

MALFORMED = {
    "a code without a group": ("s,A,x\ns,B\n", 3),
    "an empty group": ("s,A,x\ns,B,\n", 3),
    "an empty code": ("s,,x\n", 2),
    "an empty system": (",A,x\n", 2),
    "a group of spaces": ("s,A,  \n", 2),
    "a line of commas": ("s,A,x\n,,\n", 3),
    "a fourth field": ("s,A,x\ns,B,y,z\n", 3),
    "an empty fourth field": ("s,A,x,\n", 2),
    "semicolons": ("s;A;x\n", 2),
    "a code in two groups": ("s,A,x\ns,B,y\ns,A,y\n", 4),
    "a code in two groups, but for spaces": ("s,A,x\n\ns, A,y\n", 4),
    "a wrong line after one that is two lines long": ('s,A,"x\ny"\ns,B\n', 4),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_line_that_cannot_be_is_refused_by_file_and_number(fault: str, write: Write):
    content, number = MALFORMED[fault]

    with pytest.raises(MappingFileInvalid, match=rf"ccs\.csv, line {number}: expected "):
        read_mapping(CCS, beside=write(HEADER + content))


def test_a_code_in_two_groups_is_told_from_an_empty_field(write: Write):
    with pytest.raises(MappingFileInvalid, match="each code in one group, got a second one"):
        read_mapping(CCS, beside=write(HEADER + "s,A,x\ns,A,y\n"))
    with pytest.raises(MappingFileInvalid, match="system, code, group, none of them empty"):
        read_mapping(CCS, beside=write(HEADER + "s,A,\n"))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "code,system,group\n",
        "system,code\n",
        "system,code,group,note\n",
        "System,Code,Group\n",
        "system;code;group\n",
        "system,code,code\n",
        "s,A,x\n",
    ],
    ids=repr,
)
def test_other_columns_are_refused_with_those_that_are_expected(header: str, write: Write):
    with pytest.raises(MappingFileInvalid, match=r"ccs\.csv: expected the columns system, code, group"):
        read_mapping(CCS, beside=write(header + ("s,A,x\n" if header else "")))


@pytest.mark.parametrize("content", [HEADER, HEADER.strip(), HEADER + "\n\n"], ids=repr)
def test_a_mapping_of_no_code_is_refused(content: str, write: Write):
    with pytest.raises(MappingFileInvalid, match=r"ccs\.csv: expected at least one code"):
        read_mapping(CCS, beside=write(content))


@pytest.mark.parametrize("content", [HEADER.encode() + b"s,A,Fi\xe8vre\n", HEADER.encode("utf-16")], ids=["1252", "16"])
def test_a_mapping_in_another_encoding_is_refused(content: bytes, write: Write):
    with pytest.raises(MappingFileInvalid, match=r"ccs\.csv: expected a mapping file in UTF-8"):
        read_mapping(CCS, beside=write(content))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path):
    (tmp_path / "folder.csv").mkdir()

    for path in ("absent.csv", "folder.csv"):
        with pytest.raises(MappingFileInvalid, match=rf"{path}: expected a mapping file that can be read"):
            read_mapping(MappingFile(name="ccs", path=path), beside=tmp_path)


def test_a_quote_that_is_never_closed_is_refused(write: Write):
    with pytest.raises(MappingFileInvalid, match="line"):
        read_mapping(CCS, beside=write(HEADER + 's,I48.0,"af\ns,E11.9,dm\n'))


def test_a_quote_that_is_never_closed_in_a_large_file_is_refused(write: Write):
    # The csv module gives up on fields of more than 131,072 characters.
    with pytest.raises(MappingFileInvalid, match="line"):
        read_mapping(CCS, beside=write(HEADER + 's,I48.0,"af\n' + "s,E11.9,dm\n" * 12_000))


# Mappings in a declaration


def test_every_mapping_file_is_read_into_the_declaration_and_all_else_stays(write: Write):
    other = {"kind": "mapping-file", "name": "races", "path": "ccs.csv"}
    sex = {"kind": "sex", "name": "sex"}
    groups = (
        sex,
        {"kind": "race", "categories": ["white"], "grouping": other},
        {"kind": "ethnicity", "categories": ["white"], "grouping": other},
        a_diagnosis_group(),
        a_diagnosis_group(name="cut", grouping={"kind": "prefix", "length": 3}),
        a_diagnosis_group(name="plain", grouping=None),
    )
    beside = write(HEADER + f"{OMB_RACE_ETHNICITY},2106-3,white\n")

    spec, resolved = spec_of(*groups), resolve_mappings(spec_of(*groups), beside=beside)

    assert [type(getattr(group, "grouping", None)).__name__ for group in resolved.groups] == [
        "NoneType",
        "MappedCodes",
        "MappedCodes",
        "MappedCodes",
        "PrefixGrouping",
        "NoneType",
    ]
    assert [group.grouping.name for group in resolved.groups[1:4]] == ["races", "races", "ccs"]
    assert resolved.groups[0] == spec.groups[0]
    assert resolved.groups[4:] == spec.groups[4:]
    assert spec.groups[3].grouping == CCS
    assert spec.unfitted() == ("race", "ethnicity", "problems", "cut", "plain")
    assert resolved.unfitted() == ("problems", "cut", "plain")


def test_a_resolved_declaration_needs_its_file_no_more_and_keeps_its_digest(write: Write):
    beside = write(HEADER + f"{ICD10CM},I48.0,af\n")
    resolved = resolve_mappings(spec_of(a_diagnosis_group()), beside=beside)
    (beside / "ccs.csv").unlink()

    read_back = parse_feature_spec(resolved.to_json())

    assert read_back == resolved
    assert read_back.digest() == resolved.digest()
    assert resolve_mappings(read_back, beside=beside) == resolved


def test_another_file_is_another_declaration(write: Write):
    digests = {
        resolve_mappings(spec_of(a_diagnosis_group()), beside=write(HEADER + content)).digest()
        for content in ("s,A,x\n", "s,A,y\n", "s,B,x\n", "s,A,x\n\n")
    }

    assert len(digests) == 4


def test_a_declaration_without_mapping_files_reads_none(tmp_path: Path):
    spec = spec_of(a_diagnosis_group(grouping=None))

    assert resolve_mappings(spec, beside=tmp_path / "absent") == spec


def test_a_declaration_file_is_loaded_with_the_mapping_beside_it(write: Write):
    beside = write(HEADER + f"{ICD10CM},I48.0,af\n")
    (beside / "d.json").write_text(json.dumps({"schema_version": 1, "groups": [a_diagnosis_group()]}))

    (group,) = load_declaration(beside / "d.json").groups

    assert lines(group.grouping) == [(ICD10CM, "I48.0", "af")]


def test_a_declaration_file_with_a_broken_mapping_is_refused_by_the_mappings_line(write: Write):
    beside = write(HEADER + "s,A,\n")
    (beside / "d.json").write_text(json.dumps({"schema_version": 1, "groups": [a_diagnosis_group()]}))

    with pytest.raises(DeclarationInvalid, match=r"ccs\.csv, line 2: "):
        load_declaration(beside / "d.json")


def test_a_declaration_whose_fixed_groups_the_file_has_not_is_refused_by_name(write: Write):
    beside = write(HEADER + f"{ICD10CM},I48.0,af\n")
    fixed = {"kind": "codes", "codes": [["urn:deployr:group:ccs", "dm"]]}
    # The system of the groups has to be listed for the declaration to be read at all.
    group = a_diagnosis_group(codes=fixed, systems=[ICD10CM, "urn:deployr:group:ccs"])
    (beside / "d.json").write_text(json.dumps({"schema_version": 1, "groups": [group]}))

    with pytest.raises(DeclarationInvalid, match=r"d\.json: .*groups of its mapping"):
        load_declaration(beside / "d.json")
