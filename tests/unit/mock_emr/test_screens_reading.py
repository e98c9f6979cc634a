"""What the screens make of what came over the wire and of what was written: advisories, scores, plots, messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from mock_emr.scores import Cell, Feature, Row
from mock_emr.screens.advisories import Run, advisories_in, blocks_of
from mock_emr.screens.bridge import BridgeError, settings_in
from mock_emr.screens.people import name_of, person_in
from mock_emr.screens.plots import Point, plot_of
from mock_emr.screens.score_cells import model_title, score_cells
from mock_emr.screens.wire import Said, Wire, without_secrets

NOON = datetime(2015, 1, 6, 12, tzinfo=UTC)
CARD = {
    "uuid": "c1",
    "summary": "Repeat is likely normal",
    "indicator": "warning",
    "detail": "Score **0.75** &lt;i&gt;\n\n- one\n- two",
    "source": {"label": "Laboratory"},
    "overrideReasons": [{"code": "changed", "system": "urn:x", "display": "Changed"}, {"display": "no code"}],
    "suggestions": [{"uuid": "s1", "label": "Take it back", "actions": [{"type": "delete", "resourceId": "x"}]}],
    "links": [
        {"label": "Model", "url": "https://models.example/", "type": "absolute"},
        {"label": "Trap", "url": "javascript:alert(1)", "type": "absolute"},
        {"label": "App", "url": "https://app.example/", "type": "smart"},
    ],
}


def test_a_card_becomes_an_advisory_with_its_reasons_suggestions_and_web_links() -> None:
    [advisory] = advisories_in({"cards": [CARD]}, service="hct-order-sign")
    assert (advisory.advisory_id, advisory.service, advisory.indicator) == ("c1", "hct-order-sign", "warning")
    assert [reason.code for reason in advisory.reasons] == ["changed"]
    assert [(one.suggestion_id, one.takes_back) for one in advisory.suggestions] == [("s1", True)]
    assert advisory.links == (("Model", "https://models.example/"),)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"cards": None}, {"cards": ["x", 1]}, {"cards": [{}]}, {"cards": [{**CARD, "uuid": 3}]}],
)
def test_what_is_no_card_advises_nothing(answer: object) -> None:
    assert advisories_in(answer, service="s") == ()


def test_detail_is_split_into_bold_words_and_lists_and_entities_are_characters() -> None:
    paragraph, listed = blocks_of(CARD["detail"])
    [line] = paragraph.lines
    assert line == (
        Run(text="Score ", is_strong=False),
        Run(text="0.75", is_strong=True),
        Run(text=" <i>", is_strong=False),
    )
    assert listed.is_list
    assert [run.text for line in listed.lines for run in line] == ["one", "two"]


def test_a_plot_runs_from_margin_to_margin_with_the_larger_value_above() -> None:
    points = [
        Point(at=NOON + timedelta(hours=hours), value=value, text="") for hours, value in ((0, 1), (1, 3), (4, 2))
    ]
    plot = plot_of(points, width=112, height=52)
    # 6 to 106 over 4 hours, an hour is 25; 6 to 46 over values 3 to 1.
    assert [(mark.x, mark.y) for mark in plot.marks] == [(6, 46), (31, 6), (106, 26)]
    assert plot.band_top is None


def test_a_plot_of_equal_values_or_of_one_alone_is_drawn_in_the_middle() -> None:
    [mark] = plot_of([Point(at=NOON, value=7, text="")], width=100, height=50).marks
    assert (mark.x, mark.y) == (50, 25)


def test_the_band_is_open_where_the_range_is() -> None:
    plot = plot_of([Point(at=NOON, value=0, text="")], width=100, height=52, low=None, high=10)
    # 0 is the lowest that is shown and 10 the highest: the band goes from there to the edge.
    assert (plot.band_top, plot.band_bottom) == (6, 52)


def cell(*scores: tuple[int, str], csn: str = "1", features: tuple[Feature, ...] = ()) -> Cell:
    rows = tuple(Row(job_id=f"{hour}", score=score, written_at=NOON + timedelta(hours=hour)) for hour, score in scores)
    return Cell(model_id="SHC.HCT_ABNORMAL@1", csn=csn, rows=rows, name="HCT", features=features)


def test_a_score_shows_its_latest_value_and_its_course_over_all_stays() -> None:
    cells = [cell((5, "40"), csn="2"), cell((0, "20"), (1, "30"))]
    shown = score_cells(cells)["SHC.HCT_ABNORMAL@1"]
    assert (shown.model, shown.score, shown.change, shown.direction) == ("Hct abnormal", "40", 10, "up")
    assert [point.text for point in shown.course] == ["20", "30", "40"]


def test_features_stand_in_order_of_what_they_contribute_with_bars_against_the_largest() -> None:
    features = (
        Feature(name="Age", contribution="0.25", values=("71",)),
        Feature(name="Urea_nitrogen", contribution="-0.5", values=("7", "7.10", "8", "9", "10", "11")),
        Feature(name="Sex", contribution=None, values=("1",)),
        Feature(name="Height", contribution="0.004", values=()),
    )
    made_of = score_cells([cell((0, "20"), features=features)])["SHC.HCT_ABNORMAL@1"].made_of
    assert [(made.name, made.contribution, made.bar) for made in made_of] == [
        ("Urea nitrogen", "−0.50", -60),
        ("Age", "+0.25", 30),
        # 60 * 0.004 / 0.5
        ("Height", "+0.0040", 0.5),
        ("Sex", "", 0),
    ]
    assert made_of[0].values == "7, 7.1 and 4 more"


@pytest.mark.parametrize("score", ["nan", "inf", "high"])
def test_a_score_that_is_no_number_is_shown_as_it_was_written_and_not_drawn(score: str) -> None:
    shown = score_cells([cell((0, score))])["SHC.HCT_ABNORMAL@1"]
    assert (shown.score, shown.trend, shown.change) == (score, None, None)


def test_a_model_is_called_by_its_name_without_namespace_and_version() -> None:
    assert model_title("SHC.HCT_ABNORMAL@1") == "Hct abnormal"
    assert model_title("plain") == "Plain"


def test_only_the_generators_patients_get_a_made_up_name() -> None:
    generated = {"id": "a", "identifier": [{"system": "urn:deployr:synthetic:person", "value": "SYN1"}]}
    assert name_of(generated) == name_of(generated)
    assert name_of({"id": "a", "identifier": [{"system": "urn:eicu:person", "value": "1"}]}) is None
    assert name_of({"id": "a", "name": [{"given": ["Ann", "B."], "family": "Lee"}]}) == "Ann B. Lee"


@pytest.mark.parametrize(
    ("born", "age"), [("1950-01-06", 65), ("1950-01-07", 64), ("1950", 65), ("", None), ("soon", None)]
)
def test_age_is_in_completed_years(born: str, age: int | None) -> None:
    assert person_in({"id": "a", "birthDate": born}, now=NOON).age == age


def test_bodies_are_shown_indented_where_they_can_be_read_and_as_they_are_where_not() -> None:
    def text(body: bytes) -> str:
        return Said(start="", headers={}, body=body).text

    assert text(b'{"a":["b"]}') == '{\n  "a": [\n    "b"\n  ]\n}'
    assert text(b"<a><b/></a>") == "<a>\n  <b/>\n</a>\n"
    assert text(b'{"a":') == '{"a":'
    assert text(b"<a>") == "<a>"
    assert text(b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>').count("&b;") == 1
    assert text(b"x" * 50_000).endswith("cut after 40,000 characters")


def test_secrets_do_not_reach_the_screen_and_old_exchanges_go() -> None:
    assert without_secrets({"Authorization": "Basic abc", "Accept": "x"}) == {
        "Authorization": "(9 characters)",
        "Accept": "x",
    }
    wire = Wire(limit=1)
    assert (wire.next_number(), wire.next_number(), wire.latest()) == (1, 2, ())


@pytest.mark.parametrize(
    "change",
    [
        {"address": "file:///etc/passwd"},
        {"address": "http://h/path"},
        {"services": []},
        {"wait_s": 0},
        {"way": "fax"},
        {"extra": 1},
    ],
)
def test_where_the_bridge_is_must_be_said_as_expected(change: dict[str, object]) -> None:
    good: dict[str, object] = {"address": "http://127.0.0.1:7071", "services": ["a"]}
    assert settings_in(msgspec.json.encode(good)).wait_s == 5.0
    with pytest.raises(BridgeError):
        settings_in(msgspec.json.encode({**good, **change}))
