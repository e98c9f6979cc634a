"""What is believed of a vendor's results, and when they count as known."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from deployr_core.codes import LOINC, OMB_RACE_ETHNICITY, Code
from deployr_core.facts import BirthDate, Sex
from deployr_serve.adapters import epic_facts as facts
from deployr_serve.adapters.epic_components import SHIPPED, Component, FlowsheetRow, read_vendor_codes
from deployr_serve.core.errors import EmrBadResponse

CODES = read_vendor_codes(SHIPPED)
NEW_YORK = ZoneInfo("America/New_York")
HCT = Component(base_name="HCT", code="4544-3", unit="%")


def result(**members):
    row = {
        "Value": ["23.6"],
        "Units": "%",
        "ResultDate": "03/04/2023",
        "ResultTime": "1:05 PM",
        "Abnormality": None,
        **members,
    }
    return msgspec.convert(row, facts.ResultComponent)


def labs(*results, component=HCT, zone=NEW_YORK):
    dropped = Counter()
    found = facts.labs([(component, one) for one in results], codes=CODES, zone=zone, dropped=dropped)
    return found, dict(dropped)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_a_result_becomes_a_fact_under_its_code_in_its_unit():
    [lab], dropped = labs(result(Abnormality={"Title": "Low"}))
    assert (lab.codes, lab.value, lab.unit, lab.abnormal) == ((Code(LOINC, "4544-3"),), 23.6, "%", True)
    # 1:05 PM in New York, five hours behind in March: known once that minute is over.
    assert (lab.at, lab.known_at) == (utc(2023, 3, 4, 18, 5), utc(2023, 3, 4, 18, 6))
    assert (lab.order_id, lab.reference_low, lab.reference_high) == (None, None, None)
    assert dropped == {}
    assert "23.6" not in repr(lab) + repr(result())


@pytest.mark.parametrize(
    ("text", "value"),
    [("23.6", 23.6), (" 23.6 ", 23.6), ("-1", -1.0), ("+1.5", 1.5), (".5", 0.5), ("0", 0.0), ("007", 7.0)],
)
def test_a_text_that_is_a_number_is_one(text, value):
    assert facts.number_in(text) == value


@pytest.mark.parametrize(
    "text",
    [
        ">100",
        "<0.1",
        "5.1 H",
        "see note",
        "1,234",
        "1 234",
        "12-15",
        "1e3",
        "NaN",
        "inf",
        "5.",
        "",
        "-",
        "٣",
        "9" * 13,
        "5.1\n5.2",
        "120/80",
    ],
)
def test_letters_are_never_deleted_to_make_a_number_of_a_text(text):
    assert facts.number_in(text) is None
    [lab], dropped = labs(result(Value=[text]))
    assert lab.value is None
    assert dropped == {"labs.not_a_number": 1}


def test_a_value_of_two_lines_is_not_the_first_of_them():
    [lab], dropped = labs(result(Value=["23.6", "hemolyzed"]))
    assert (lab.value, dropped) == (None, {"labs.not_a_number": 1})


@pytest.mark.parametrize("value", [None, []])
def test_a_result_without_a_value_is_a_result_without_a_number(value):
    [lab], dropped = labs(result(Value=value))
    assert (lab.value, dropped) == (None, {})


def test_the_unit_is_the_answers_else_the_files_else_missing_and_counted():
    assert labs(result(Units="g/L"))[0][0].unit == "g/L"
    assert labs(result(Units=None))[0][0].unit == "%"
    assert labs(result(Units=" "))[0][0].unit == "%"
    [lab], dropped = labs(result(Units=""), component=Component(base_name="X", code="4544-3"))
    assert (lab.unit, dropped) == ("", {"labs.no_unit": 1})


@pytest.mark.parametrize(
    ("abnormality", "abnormal"),
    [
        (None, None),
        ({"Title": None}, None),
        ({"Title": ""}, None),
        ({"Title": "Normal"}, False),
        ({"Title": "None"}, False),
        ({"Title": "High Panic"}, True),
    ],
)
def test_the_laboratorys_flag_is_its_title(abnormality, abnormal):
    assert labs(result(Abnormality=abnormality))[0][0].abnormal is abnormal


def test_results_that_look_the_same_are_two_specimens_released_together():
    found, dropped = labs(result(), result(), result(Value=["24"]))
    assert [lab.value for lab in found] == [23.6, 23.6, 24.0]
    assert len({lab.fact_id for lab in found}) == 3
    assert dropped == {}


# -- when


def test_an_instant_is_preferred_to_the_wall():
    dated = facts.when(result(Instant="2023-03-04T18:05:42Z"), zone=NEW_YORK)
    assert dated == (utc(2023, 3, 4, 18, 5, 42), utc(2023, 3, 4, 18, 5, 42))


def test_an_instant_to_the_minute_is_known_when_its_minute_is_over():
    dated = facts.when(result(Instant="2023-03-04T18:05Z"), zone=NEW_YORK)
    assert dated == (utc(2023, 3, 4, 18, 5), utc(2023, 3, 4, 18, 6))


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("12:00 AM", utc(2023, 3, 4, 5, 0)),
        ("12:30 PM", utc(2023, 3, 4, 17, 30)),
        ("11:59 pm", utc(2023, 3, 5, 4, 59)),
        ("01:05PM", utc(2023, 3, 4, 18, 5)),
    ],
)
def test_the_walls_twelve_hours_are_read(time, at):
    assert facts.when(result(ResultTime=time), zone=NEW_YORK)[0] == at


def test_seconds_are_kept():
    dated = facts.when(result(ResultTime="1:05:09 PM"), zone=NEW_YORK)
    assert dated == (utc(2023, 3, 4, 18, 5, 9), utc(2023, 3, 4, 18, 5, 9))


@pytest.mark.parametrize("time", [None, ""])
def test_a_day_without_a_time_is_known_when_it_is_over(time):
    dated = facts.when(result(ResultTime=time), zone=NEW_YORK)
    assert dated == (utc(2023, 3, 4, 5), utc(2023, 3, 5, 5))


def test_an_hour_that_comes_twice_begins_with_the_first_and_is_known_after_the_second():
    # 5 November 2023: 1:30 AM is 05:30 UTC (summer time) and, an hour later, 06:30 UTC.
    dated = facts.when(result(ResultDate="11/05/2023", ResultTime="1:30 AM"), zone=NEW_YORK)
    assert dated == (utc(2023, 11, 5, 5, 30), utc(2023, 11, 5, 6, 31))


def test_an_hour_that_the_clocks_skip_is_read_both_ways():
    # 12 March 2023: 2:30 AM does not exist; with summer time it would be 06:30 UTC, without 07:30 UTC.
    dated = facts.when(result(ResultDate="3/12/2023", ResultTime="2:30 AM"), zone=NEW_YORK)
    assert dated == (utc(2023, 3, 12, 6, 30), utc(2023, 3, 12, 7, 31))


def test_a_result_without_a_date_is_left_out_and_counted():
    assert labs(result(ResultDate=None)) == ((), {"labs.no_release_time": 1})


@pytest.mark.parametrize(
    "members",
    [
        {"ResultDate": "2023-03-04"},
        {"ResultDate": "13/40/2023"},
        {"ResultDate": "02/30/2023"},
        {"ResultDate": "yesterday"},
        {"ResultTime": "13:05 PM"},
        {"ResultTime": "0:05 AM"},
        {"ResultTime": "1:65 PM"},
        {"ResultTime": "1:05"},
        {"ResultTime": "noon"},
        {"Instant": "03/04/2023 1:05 PM"},
    ],
)
def test_a_date_that_is_none_makes_the_answer_unusable_and_is_not_repeated(members):
    with pytest.raises(EmrBadResponse) as raised:
        labs(result(**members))
    assert not any(value in str(raised.value) for value in members.values() if len(value) > 5 and value != "13:05 PM")


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (None, set()),
        ("", set()),
        ("hct", {"HCT"}),
        (1534, {"1534"}),
        ({"ID": "1534", "Type": "INTERNAL"}, {"1534"}),
        ([{"ID": "1534", "Type": "INTERNAL"}, {"ID": "HCT", "Type": "base-name"}], {"1534", "HCT"}),
    ],
)
def test_a_result_says_what_it_is_of_in_several_ways(told, names):
    assert result(ComponentID=told).names == names


# -- vital signs


def vitals(row, *columns, unit="bpm"):
    answer = {
        "FlowsheetRowID": [{"ID": row.id, "Type": "EXTERNAL"}],
        "Unit": unit,
        "FlowsheetColumns": [{"Instant": instant, "RawValue": value} for instant, value in columns],
    }
    dropped = Counter()
    named = [(row, msgspec.convert(answer, facts.FlowsheetRowAnswer))]
    return facts.vitals(named, codes=CODES, zone=NEW_YORK, dropped=dropped), dict(dropped)


def test_a_flowsheet_value_becomes_a_vital_sign_in_ucum():
    [vital], dropped = vitals(FlowsheetRow(id="8", codes=("8867-4",)), ("2023-03-04T18:05:00Z", "80"))
    assert (vital.codes, vital.value, vital.unit) == ((Code(LOINC, "8867-4"),), 80.0, "/min")
    assert (vital.at, vital.known_at) == (utc(2023, 3, 4, 18, 5),) * 2
    assert dropped == {}


def test_a_blood_pressure_becomes_two():
    row = FlowsheetRow(id="5", codes=("8480-6", "8462-4"))
    found, dropped = vitals(row, ("2023-03-04T18:05:00Z", "120/80"), unit="mmHg")
    assert [(vital.codes[0].value, vital.value, vital.unit) for vital in found] == [
        ("8480-6", 120.0, "mm[Hg]"),
        ("8462-4", 80.0, "mm[Hg]"),
    ]
    assert dropped == {}


@pytest.mark.parametrize("text", ["120", "120/", "120/80/60", "120/80 (93)", "unable"])
def test_a_blood_pressure_that_is_not_two_numbers_is_none(text):
    row = FlowsheetRow(id="5", codes=("8480-6", "8462-4"), unit="mm[Hg]")
    found, dropped = vitals(row, ("2023-03-04T18:05:00Z", text), unit=None)
    assert None in [vital.value for vital in found]
    assert dropped == {"vitals.not_a_number": 1}


def test_flowsheet_values_without_time_or_unit_are_counted():
    found, dropped = vitals(
        FlowsheetRow(id="6", codes=("8310-5",)), (None, "37"), ("2023-03-04T18:05:00Z", "37"), unit=""
    )
    assert [vital.unit for vital in found] == [""]
    assert dropped == {"vitals.no_id_or_time": 1, "vitals.no_unit": 1}


# -- who


@pytest.mark.parametrize(
    ("text", "born"),
    [
        ("1950-03-04", BirthDate(year=1950, month=3, day=4)),
        ("1950-03-04T00:00:00", BirthDate(year=1950, month=3, day=4)),
        ("3/4/1950", BirthDate(year=1950, month=3, day=4)),
        ("03/04/1950", BirthDate(year=1950, month=3, day=4)),
        ("1950", BirthDate(year=1950)),
        (None, None),
        ("", None),
        ("13/40/1950", None),
        ("4 March 1950", None),
    ],
)
def test_a_birth_date_is_read_as_precise_as_it_is(text, born):
    assert facts.birth_date(text) == born


def test_the_shape_of_2010_has_races_between_carets_and_no_ethnicity():
    answer = facts.Demographics2010(date_of_birth="3/4/1950", gender="Female", race="White^2^Asian")
    dropped = Counter()
    who = facts.demographics_of_2010(answer, codes=CODES, dropped=dropped)
    assert (who.sex, who.birth_date, who.ethnicities) == (Sex.FEMALE, BirthDate(year=1950, month=3, day=4), ())
    assert who.races == (Code(OMB_RACE_ETHNICITY, "2106-3"), Code(OMB_RACE_ETHNICITY, "2028-9"))
    assert dropped == {}


def test_the_shape_of_2019_has_titles():
    answer = msgspec.convert(
        {
            "DateOfBirth": "1950-03-04",
            "LegalSex": {"Title": "Male"},
            "Race": [{"Title": "White"}, {"Title": "Martian"}],
            "Ethnicity": {"Title": "Not Hispanic or Latino"},
        },
        facts.Demographics2019,
    )
    dropped = Counter()
    who = facts.demographics_of_2019(answer, codes=CODES, dropped=dropped)
    assert (who.sex, who.races) == (Sex.MALE, (Code(OMB_RACE_ETHNICITY, "2106-3"),))
    assert who.ethnicities == (Code(OMB_RACE_ETHNICITY, "2186-5"),)
    assert dropped == {"patient.race_not_mapped": 1}


def test_what_is_not_understood_about_a_patient_is_unknown_and_counted():
    answer = facts.Demographics2010(date_of_birth="around 1950", gender="Choose not to disclose", race="Martian^9")
    dropped = Counter()
    who = facts.demographics_of_2010(answer, codes=CODES, dropped=dropped)
    assert (who.birth_date, who.sex, who.races) == (None, Sex.UNKNOWN, ())
    assert dropped == {
        "patient.birth_date_unreadable": 1,
        "patient.sex_not_mapped": 1,
        "patient.race_not_mapped": 1,
    }
