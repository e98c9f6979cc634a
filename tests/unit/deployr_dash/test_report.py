"""The report for a committee: what is in it, and that HTML and PDF hold it whole, described and in order."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from lxml import etree

from deployr_dash.panels.tabs import TABS
from deployr_dash.parts import ExtractMissing
from deployr_dash.plan import MonitoringPlan, Watched
from deployr_dash.references import reference_file
from deployr_dash.report import Chapter, Drawings, Report, chapter_of, drawings_of, glance_of, passages_of
from deployr_dash.report_html import report_html
from deployr_dash.report_making import Asked, NoSuchModel, make_report
from deployr_dash.report_pdf import report_pdf
from deployr_dash.views import ReferenceUnusable
from deployr_plots.figures import Role
from deployr_plots.palettes import DARK, LIGHT
from deployr_plots.tables import Table
from tests.unit.deployr_dash.made_up import DIGEST, packets, view, write_extract

MADE_AT = datetime(2015, 4, 2, 6, 30, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
PLAN = MonitoringPlan(
    model="hematocrit",
    watched=(Watched(metric="AUROC", cadence="monthly", owner="Ada <ada@x>", action="Call the committee & pause."),),
)
ALERT = Table(columns=("raised (UTC)", "alert"), rows=(("2015-03-03 04:05", "AUROC below its limit"),))


def chapter(number: int = 1, *, n: int = 300, **given: object) -> Chapter:
    """Give the chapter of a season's packets."""
    frame = packets(n)
    shown = view(frame, first_day=45, last_day=90)
    if given.pop("empty", False):
        shown = replace(shown, packets=shown.packets.head(0))
    arguments: dict[str, object] = {"plan": PLAN, "alerts": {"hematocrit": ALERT}, "tell": lambda: None, **given}
    return chapter_of(shown, number, **arguments)  # type: ignore[arg-type]


def report_of(*chapters: Chapter) -> Report:
    """Give a report with these chapters."""
    return Report(
        title="Monitoring report: hematocrit, 2015-02-15 to 2015-03-31",
        window="2015-02-15 to 2015-03-31",
        facts=(("Models", "hematocrit"), ("Made", "2015-04-02 06:30 UTC by <nobody> & co.")),
        made_at=MADE_AT,
        made_by="<nobody> & co.",
        glance=glance_of([], view(packets(50)).window),
        chapters=chapters,
        passages=passages_of(only_ripe=True, alerts_are_shown=True),
    )


@pytest.fixture(scope="module")
def whole() -> Chapter:
    """Give a chapter with everything."""
    return chapter()


@pytest.fixture(scope="module")
def made(whole: Chapter) -> Report:
    """Give a report of two chapters, one of them without packets."""
    return report_of(whole, chapter(2, empty=True, plan=None, alerts=None))


@pytest.fixture(scope="module")
def drawings(made: Report) -> Drawings:
    """Give its figures, drawn."""
    return drawings_of(made)


@pytest.fixture(scope="module")
def text(made: Report, drawings: Drawings) -> str:
    """Give its HTML."""
    return report_html(made, drawings)


@pytest.fixture(scope="module")
def page(text: str) -> etree._Element:
    """Give its HTML, read strictly: what is not closed or not escaped is an error."""
    return etree.fromstring(text.removeprefix("<!doctype html>\n").encode())


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an extract of two models."""
    folder = tmp_path_factory.mktemp("report") / "extract"
    write_extract(folder, packets(60), packets(40, model_id="potassium", seed=5, trial=False, days=30))
    return folder


def outline(made: Report) -> list[tuple[int, str]]:
    """Give what the report's headings are to be: level under the title, and words."""
    found = [(1, made.glance.title)]
    for each in made.chapters:
        found.append((1, each.title))
        for section in each.sections:
            found.append((2, section.title))
            found += [(3, panel.title) for panel in section.panels]
    return found + [(1, passage.title) for passage in made.passages]


def test_a_chapter_has_the_tabs_panels_in_order_and_at_the_end_why_others_have_nothing_to_show(whole: Chapter) -> None:
    assert [each.title for each in whole.sections] == [*(tab.title for tab in TABS.values()), "Who watches what"]
    absent = []
    for (key, tab), section in zip(TABS.items(), whole.sections, strict=False):
        names = [panel.name.removeprefix("model-1-") for panel in section.panels]
        shown = [name for name in names if name in tab.panels]
        assert shown == [name for name in tab.panels if name in shown]
        assert len(shown) > len(tab.panels) / 3
        assert names in (shown, [*shown, f"absent-{key}"])
        absent += section.panels[-1].tables[0].table.rows if names != shown else []
    assert absent
    assert all(len(str(why)) > 20 for _, why in absent)


def test_a_chapter_says_what_is_predicted_and_which_versions_answered(whole: Chapter) -> None:
    about = dict(whole.about)
    assert about["Predicts"] == "the hematocrit lies outside its own reference range"
    assert "Version 3d4e5f" in about
    assert about["Mode"] == "trial"
    assert whole.running == "hematocrit, version 3d4e5f"


def test_alerts_are_shown_as_they_are_handed_in_and_nothing_is_said_where_nobody_looked(whole: Chapter) -> None:
    shown = {panel.name: panel for section in whole.sections for panel in section.panels}
    assert shown["model-1-alerts"].tables[0].table == ALERT
    none = {panel.name: panel for section in chapter(empty=True, alerts={}).sections for panel in section.panels}
    assert none["model-1-alerts"].said == ("No alert was raised in these days.",)
    unknown = [panel.name for section in chapter(empty=True, alerts=None).sections for panel in section.panels]
    assert "model-1-alerts" not in unknown


def test_a_model_without_packets_or_plan_has_a_chapter_that_helps(made: Report) -> None:
    first, second = made.chapters[1].sections
    assert "Choose other days" in str(first.panels[0].missing)
    assert "monitoring_plan.yaml" in str(second.panels[0].missing)


def test_headings_of_the_page_are_those_of_the_report_and_skip_no_level(made: Report, page: etree._Element) -> None:
    found = [(int(each.tag[1]), "".join(each.itertext())) for each in page.iter("h1", "h2", "h3", "h4")]
    assert found == [(1, made.title), (2, "Contents"), *((level + 1, title) for level, title in outline(made))]
    levels = [level for level, _ in found]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_page_refers_to_nothing_outside(page: etree._Element) -> None:
    referred = [value for each in page.iter() for name, value in each.items() if name in {"href", "src", "action"}]
    assert referred
    assert [each for each in referred if not each.startswith(("#", "data:,"))] == []
    assert list(page.iter("script", "link", "img", "iframe")) == [page.find("head/link")]
    style = "".join(page.itertext("style"))
    assert re.findall(r"url\(|@import|https?:", style) == []


def test_every_anchor_is_there_once(page: etree._Element) -> None:
    ids = [each.get("id") for each in page.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    pointed = [each.get("href").removeprefix("#") for each in page.iter("a", f"{SVG}use")]
    named = [name for each in page.iter() for name in (each.get("aria-labelledby") or "").split()]
    assert {*pointed, *named} <= set(ids)


def test_every_figure_has_words_and_every_table_a_caption_and_headers(made: Report, page: etree._Element) -> None:
    figures = [figure for each in made.chapters for part in each.sections for p in part.panels for figure in p.figures]
    drawn = list(page.iter(f"{SVG}svg"))
    assert len(drawn) == len(figures) > 10
    for each in drawn:
        assert each.get("role") == "img"
        assert len(each.findtext(f"{SVG}title") or "") > 3
        assert len(each.findtext(f"{SVG}desc") or "") > 10
    tables = list(page.iter("table"))
    assert len(tables) > len(figures)
    for each in tables:
        assert (each.findtext("caption") or "").strip()
        assert {th.get("scope") for th in each.iter("th")} <= {"col", "row"}
    assert all(each.get("tabindex") == "0" for each in page.iter("div") if "d-scroll" in (each.get("class") or ""))


def test_colours_of_figures_are_those_of_light_and_dark_paper(text: str) -> None:
    main, dark = LIGHT.roles[Role.MAIN], DARK.roles[Role.MAIN]
    assert f"--f-{main[1:]}: {main};" in text
    assert f"--f-{main[1:]}: {dark};" in text
    drawn = text[text.index("<body>") :]
    assert f"var(--f-{main[1:]})" in drawn
    assert {*LIGHT.roles.values(), LIGHT.ink, LIGHT.paper} & set(re.findall(r"#[0-9a-f]{6}", drawn)) == set()


def test_no_packet_is_named(text: str) -> None:
    assert re.findall(r"p0{20,}", text) == []


def test_the_same_report_gives_the_same_page(made: Report, drawings: Drawings, text: str) -> None:
    assert drawings_of(replace(made, chapters=made.chapters[1:])) == {}
    assert report_html(made, drawings) == text


def test_a_report_holds_the_models_and_days_that_were_asked_for(extract: Path) -> None:
    told: list[tuple[int, int]] = []
    asked = Asked(models=("potassium",), first=date(2015, 1, 10), last=date(2015, 1, 20))
    made = make_report(extract, asked, made_at=MADE_AT, made_by="cron", tell=lambda *done: told.append(done))
    assert made.title == "Monitoring report: potassium, 2015-01-10 to 2015-01-20"
    assert [each.title for each in made.chapters] == ["potassium"]
    assert [row[0] for row in made.glance.tables[0].table.rows] == ["potassium"]
    assert dict(made.facts)["Made"] == "2015-04-02 06:30 UTC by cron"
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_without_days_it_is_of_the_90_up_to_the_extract_so_that_silence_is_seen(tmp_path: Path) -> None:
    both = packets(2).assign(
        received_at=pd.to_datetime(["2014-11-01 10:00", "2015-03-31 23:59"], utc=True).as_unit("us")
    )
    write_extract(tmp_path, both)
    assert make_report(tmp_path, Asked(), made_at=MADE_AT, made_by="x").window == "2015-01-02 to 2015-04-01"


def test_a_model_that_is_not_there_is_refused_with_those_that_are(extract: Path) -> None:
    with pytest.raises(NoSuchModel, match="got sodium; it holds hematocrit, potassium"):
        make_report(extract, Asked(models=("sodium",)), made_at=MADE_AT, made_by="x")


def test_days_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="--from 2015-02-01 not to be after --to 2015-01-01"):
        Asked(first=date(2015, 2, 1), last=date(2015, 1, 1))


def test_without_an_extract_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ExtractMissing, match="deployr monitor extract"):
        make_report(tmp_path, Asked(), made_at=MADE_AT, made_by="x")


def test_a_reference_period_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_extract(tmp_path, packets(80))
    place = reference_file(tmp_path, DIGEST)
    place.parent.mkdir()
    place.write_bytes(b"{")
    with pytest.raises(ReferenceUnusable, match="make it anew with deployr monitor reference hematocrit") as refused:
        make_report(tmp_path, Asked(), made_at=MADE_AT, made_by="x")
    assert refused.value.model == "hematocrit"


def one_class() -> pd.DataFrame:
    """Give packets whose outcomes are all alike."""
    season = packets(80)
    return season.assign(label_value=season["label_value"].where(season["label_value"].isna(), 1.0))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "bring the extract up to date with deployr monitor extract"),
        ([packets(1)], "1 packet: 1 scored"),
        ([one_class()], "all of them with the outcome"),
    ],
    ids=["no packet", "one packet", "one class"],
)
def test_a_report_of_little_or_nothing_helps(tmp_path: Path, frames: list[pd.DataFrame], said: str) -> None:
    write_extract(tmp_path, *frames)
    made = make_report(tmp_path, Asked(), made_at=MADE_AT, made_by="x")
    panels = [panel for each in made.chapters for section in each.sections for panel in section.panels]
    shown = [str(cell) for panel in panels for table in panel.tables for row in table.table.rows for cell in row]
    assert said in " ".join([*shown, *(" ".join((*each.said, each.missing or "")) for each in (made.glance, *panels))])


def test_a_report_of_no_packet_is_a_page_and_a_pdf(tmp_path: Path) -> None:
    pytest.importorskip("typst", reason="needs typst: deployr[report] installs it")
    write_extract(tmp_path)
    made = make_report(tmp_path, Asked(), made_at=MADE_AT, made_by="x")
    etree.fromstring(report_html(made, {}).removeprefix("<!doctype html>\n").encode())
    assert "none: the extract holds no packet yet" in report_html(made, {})
    assert report_pdf(made, {}).startswith(b"%PDF")


@pytest.fixture(scope="module")
def pdf(made: Report, drawings: Drawings) -> bytes:
    """Give it as PDF."""
    pytest.importorskip("typst", reason="needs typst: deployr[report] installs it")
    return report_pdf(made, drawings)


@pytest.fixture(scope="module")
def reader(pdf: bytes):
    """Give the PDF as a reader of PDFs finds it."""
    pypdf = pytest.importorskip("pypdf", reason="needs pypdf: deployr[dev] installs it")
    return pypdf.PdfReader(io.BytesIO(pdf))


def test_bookmarks_are_the_reports_headings(made: Report, reader) -> None:
    def flat(entries, level=1):
        for each in entries:
            if isinstance(each, list):
                yield from flat(each, level + 1)
            else:
                yield level, each.title

    assert list(flat(reader.outline)) == outline(made)


def test_words_can_be_marked_and_pages_say_what_they_are_of(made: Report, reader) -> None:
    texts = [" ".join(page.extract_text().split()) for page in reader.pages]
    assert made.title in texts[0]
    assert "by <nobody> & co." in texts[0]
    last = next(place for place, text in enumerate(texts) if "Call the committee & pause." in text)
    assert "hematocrit, version 3d4e5f" in texts[last]
    assert f"{last + 1} of {len(texts)}" in texts[last]
    assert "Made 2015-04-02 06:30 UTC" in texts[last]
    assert any("False alerts among" in text for text in texts)


def test_it_is_tagged_titled_and_every_figure_is_described(made: Report, reader) -> None:
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"] == True  # noqa: E712 # pypdf's own truth
    assert root["/Lang"].lower().startswith("en")
    assert reader.metadata.title == made.title
    found: dict[str, int] = {}

    def count(node) -> None:
        node = node.get_object() if hasattr(node, "get_object") else node
        if isinstance(node, list):
            for each in node:
                count(each)
        elif isinstance(node, dict):
            kind = str(node.get("/S"))
            found[kind] = found.get(kind, 0) + 1
            if kind == "/Figure":
                found["told"] = found.get("told", 0) + (len(str(node.get("/Alt", ""))) > 10)
            count(node.get("/K", []))

    count(root["/StructTreeRoot"]["/K"])
    figures = sum(len(p.figures) for each in made.chapters for part in each.sections for p in part.panels)
    tables = sum(len(p.tables) for each in made.chapters for part in each.sections for p in part.panels)
    assert found["told"] == found["/Figure"] == figures
    assert found["/Table"] == tables
    assert found["/TH"] > tables


def test_the_same_report_gives_the_same_bytes(made: Report, drawings: Drawings, pdf: bytes) -> None:
    assert report_pdf(made, drawings) == pdf
