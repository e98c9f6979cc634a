"""How panels stand on a page, and what pages say of a replay, of silence, and of days that nobody chose."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployr_dash.overview import overview
from deployr_dash.panels.drift import drift
from deployr_dash.panels.glance import glances
from deployr_dash.panels.one_packet import calls
from deployr_dash.panels.operations import latency, silence
from deployr_dash.panels.panel import Panel, Window
from deployr_dash.screens.shown import absent_html, panel_html, written
from deployr_dash.views import usual_last
from deployr_plots.figures import Figure
from tests.unit.deployr_dash.made_up import NOW, START, packets, view, write_extract
from tests.unit.deployr_dash.test_panels_small import START as BEGAN
from tests.unit.deployr_dash.test_panels_small import FetchRecord, a_packet, scored

SEASON = packets(900)


def replayed(season: pd.DataFrame) -> pd.DataFrame:
    """Give packets whose clock a replay moved."""
    return season.assign(latency_ms=np.nan, emr_ms=np.nan)


def drawn(_: Figure) -> str:
    return "<img>"


def test_what_is_to_be_typed_stands_out_and_nothing_is_taken_for_markup() -> None:
    shown = panel_html(Panel(name="a", title="A", said=("See `deployr labels`.",), missing="<b> `x` </b>"), drawn)
    assert '<p class="d-said">See <code>deployr labels</code>.</p>' in shown
    assert "&lt;b&gt; <code>x</code> &lt;/b&gt;" in shown


def test_panels_without_anything_to_show_stand_together_by_their_reason_and_keep_their_anchors() -> None:
    shown = absent_html(
        [
            Panel(name=name, title=name.upper(), missing=why)
            for name, why in (("a", "No."), ("b", "Never."), ("c", "No."))
        ]
    )
    assert shown.count('<tr><th scope="row">') == 2
    assert '<span id="a">A</span><br><span id="c">C</span></th><td>No.</td>' in shown


@pytest.mark.parametrize(
    ("cell", "words"), [(1_473_010.0, "1,473,010"), (-10_000.4, "-10,000"), (9999.5, "9999.5"), (0.25, "0.25")]
)
def test_large_numbers_are_written_whole(cell: float, words: str) -> None:
    assert written(cell) == words


def test_a_day_that_nobody_chose_is_that_of_the_extract_so_that_silence_is_seen() -> None:
    last = date(2015, 3, 1)
    assert usual_last(last, datetime(2015, 3, 4, 2, tzinfo=UTC)) == date(2015, 3, 4)
    assert usual_last(last, datetime(2015, 5, 29, tzinfo=UTC)) == date(2015, 5, 29)
    # After 90 days nothing of it would be on the page.
    assert usual_last(last, datetime(2015, 5, 30, tzinfo=UTC)) == last
    assert usual_last(last, datetime(2015, 2, 1, tzinfo=UTC)) == last


def test_silence_is_told_up_to_the_end_of_what_is_looked_at() -> None:
    season = SEASON.loc[SEASON["received_at"] < pd.Timestamp(START + timedelta(days=20))]
    assert "before the window ended" in silence(view(season, last_day=25))
    dead = silence(replace(view(season, last_day=25), now=START + timedelta(days=24)))
    assert "before the extract" in dead
    assert "may be dead" in dead


def test_the_end_of_a_replay_is_no_silence_and_its_clock_tells_no_times(tmp_path: Path) -> None:
    seen = view(replayed(SEASON.iloc[:300]))
    assert "This was a replay, which has ended." in silence(seen)
    shown = latency(seen)
    assert "A replay moved the clock" in shown.said[0]
    assert [row[0] for row in shown.tables[0].table.rows] == ["search: conditions", "search: labs"]

    quiet = packets(400, days=60)
    write_extract(tmp_path, replayed(quiet.assign(kind="scored", reason=None, deliveries_dead=0)))
    [line] = glances(overview(tmp_path), Window(start=START, end=NOW), {}, now=NOW)
    assert (line.watch, line.p95_ms) == ((), None)


def test_calls_in_a_replay_are_not_drawn_by_a_clock_that_was_moved() -> None:
    packet = a_packet(
        scored(), FetchRecord(resource="Patient", resources=1, pages=1, milliseconds=20.0, started_at=BEGAN)
    )
    assert len(calls(packet).figures) == 1
    shown = calls(packet, replayed=True)
    assert shown.figures == ()
    assert shown.tables[0].table.rows[0][:2] == ("Patient (fhir)", 20.0)


def test_without_a_time_before_the_second_half_is_held_against_the_first() -> None:
    seen = view(SEASON)
    assert seen.before.empty
    moved = seen.packets["received_at"] >= pd.Timestamp(START + timedelta(days=45))
    worse = seen.packets.assign(score=seen.packets["score"].where(~moved, seen.packets["score"] * 0.3))
    shown = drift(replace(seen, packets=worse))
    assert shown.said == ("Changed by more than chance, of scores, labels, patients and requests: score.",)
    assert shown.notes[0] == (
        "Before the window there is too little, so the second half of its time is held against the first."
    )
