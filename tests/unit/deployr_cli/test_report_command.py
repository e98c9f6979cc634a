"""`deployr report`, as somebody or a timer runs it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.report import alert_tables
from deployr_core.monitoring.alert_rules import Severity
from deployr_core.monitoring.alerting import Notice, What
from deployr_dash.panels.panel import Window
from deployr_dash.parts import ExtractMissing
from tests.unit.deployr_dash.made_up import packets, write_extract

PLAN = """model: hematocrit
watched:
  - metric: AUROC
    cadence: monthly
    owner: Clinical AI team
    action: Call the committee.
"""
AT = "2015-04-02T06:30:00Z"


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an extract of two packets."""
    folder = tmp_path_factory.mktemp("report") / "extract"
    write_extract(folder, packets(2))
    return folder


def report(*arguments: str | Path):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def refused(*arguments: str | Path) -> str:
    result = report(*arguments)
    assert isinstance(result.exception, ValueError | CommandFailed)
    return str(result.exception)


def test_it_writes_a_page_and_a_pdf_and_the_same_again_for_the_same_instant(extract: Path, tmp_path: Path) -> None:
    pytest.importorskip("typst", reason="needs typst: deployr[report] installs it")
    plans, out = tmp_path / "plans", tmp_path / "out"
    plans.mkdir()
    out.mkdir()
    (plans / "monitoring_plan.yaml").write_text(PLAN, encoding="utf-8")
    days = ("--from", "2015-01-01", "--to", "2015-03-31")
    for name in ("a", "b"):
        files = ("--html", out / f"{name}.html", "--pdf", out / f"{name}.pdf")
        done = report(extract, "--at", AT, "--by", "the committee", "--plans", plans, *days, *files)
        assert done.exit_code == 0, done.exception
        assert "measuring" in done.stdout
        assert "Monitoring report: hematocrit, 2015-01-01 to 2015-03-31" in done.stdout.replace("\n", " ")
    written = {each.name: each.read_bytes() for each in out.iterdir()}
    assert sorted(written) == ["a.html", "a.pdf", "b.html", "b.pdf"]
    assert (written["a.html"], written["a.pdf"]) == (written["b.html"], written["b.pdf"])
    assert "Made 2015-04-02 06:30 UTC by the committee" in written["a.html"].decode()
    assert "Clinical AI team" in written["a.html"].decode()
    assert written["a.pdf"].startswith(b"%PDF")


def test_what_cannot_be_asked_for_is_a_sentence_that_says_what_to_do(extract: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert "--html FILE, --pdf FILE, or both" in refused(extract)
    assert "make it first" in refused(extract, "--html", tmp_path / "nowhere" / "r.html")
    assert "it holds hematocrit" in refused(extract, "--model", "sodium", "--html", page)
    assert "not to be after" in refused(extract, "--from", "2015-02-01", "--to", "2015-01-01", "--html", page)
    assert "monitoring_plan.yaml" in refused(extract, "--plans", tmp_path / "none", "--html", page)
    settings = tmp_path / "settings.json"
    site = {"DEPLOYR_STORE": f"sqlite:{tmp_path / 'gone.sqlite'}", "DEPLOYR_BUNDLES": str(tmp_path)}
    site |= {"DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir", "DEPLOYR_ID_KEY": "k" * 32}
    settings.write_text(json.dumps({"IsEncrypted": False, "Values": site}), encoding="utf-8")
    assert "is this where the app runs?" in refused(extract, "--settings", settings, "--html", page)
    assert not page.exists()


def test_where_nothing_can_be_written_the_report_of_before_stays_and_nothing_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("the report of before", encoding="utf-8")
    result = report(tmp_path / "none", "--html", page)
    assert isinstance(result.exception, ExtractMissing)
    assert page.read_text(encoding="utf-8") == "the report of before"
    assert [each.name for each in tmp_path.iterdir()] == ["r.html"]


def notice(
    what: What, at: datetime, *, begun_at: datetime | None = None, part: str = "", is_told: bool = True
) -> Notice:
    return Notice(
        notice_id=f"{what}.{at:%d%H}",
        what=what,
        key="failures/hematocrit",
        rule="failures",
        model="hematocrit",
        part=part,
        severity=Severity.PAGE,
        said="12 of 80 failed",
        begun_at=begun_at or at,
        at=at,
        is_told=is_told,
    )


def test_alerts_that_began_in_the_window_are_told_by_model_and_when_they_were_over() -> None:
    window = Window(start=datetime(2015, 3, 1, tzinfo=UTC), end=datetime(2015, 3, 3, tzinfo=UTC))
    first, second = datetime(2015, 3, 1, 4, 5, tzinfo=UTC), datetime(2015, 3, 2, 4, 5, tzinfo=UTC)
    told = [
        notice(What.BEGUN, datetime(2015, 2, 28, 23, tzinfo=UTC)),
        notice(What.BEGUN, first),
        notice(What.REMINDER, datetime(2015, 3, 1, 5, tzinfo=UTC), begun_at=first),
        notice(What.ENDED, datetime(2015, 3, 4, 6, tzinfo=UTC), begun_at=first),
        notice(What.BEGUN, second, part="emr-timeout", is_told=False),
        notice(What.BEGUN, window.end),
    ]
    found = alert_tables(told, window)
    assert list(found) == ["hematocrit"]
    assert found["hematocrit"].rows == (
        ("2015-03-01 04:05", "2015-03-04 06:00", "page", "Many requests fail", "12 of 80 failed"),
        ("2015-03-02 04:05", "not yet", "page, silenced", "Many requests fail (emr-timeout)", "12 of 80 failed"),
    )


def test_an_alert_that_was_told_once_its_silence_was_over_is_one() -> None:
    window = Window(start=datetime(2015, 3, 1, tzinfo=UTC), end=datetime(2015, 3, 3, tzinfo=UTC))
    first = datetime(2015, 3, 1, 4, 5, tzinfo=UTC)
    told = [
        notice(What.BEGUN, first, is_told=False),
        notice(What.BEGUN, datetime(2015, 3, 2, 4, tzinfo=UTC), begun_at=first),
    ]
    assert [row[:3] for row in alert_tables(told, window)["hematocrit"].rows] == [
        ("2015-03-01 04:05", "not yet", "page"),
    ]


def test_labels_are_ripe_ones_or_all(extract: Path, tmp_path: Path) -> None:
    assert report(extract, "--labels", "some", "--html", tmp_path / "r.html").exit_code == 2
