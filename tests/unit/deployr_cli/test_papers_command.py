"""`deployr papers` and the evidence of the checklist: what is read, what is measured, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.papers import papers_app
from deployr_cli.papers_evidence import percentile_95, read_parity, read_run_files, read_service, service_of
from deployr_core.bundle import Estimate, parse_manifest
from deployr_core.governance.performance import Performance
from deployr_dev.evaluation.report import write_report
from tests.registry_parts import write_run
from tests.unit.deployr_dash.made_up import NOW, packets, write_extract
from tests.unit.deployr_dev.test_evaluation_report import evaluated


@pytest.fixture
def run(tmp_path, bundle_files, monkeypatch):
    # An extract that happens to lie in a checkout would be looked at.
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path, bundle_files)


def say(*arguments, code=0):
    result = CliRunner().invoke(papers_app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def served(run, n=600, **changes):
    """Give packets of the run's bundle in silent mode."""
    frame = packets(n, trial=False)
    frame["bundle_sha256"] = run.bundle_sha256
    return frame.assign(**changes)


def test_the_papers_of_a_run_are_written_with_local_figures_and_what_is_missing(tmp_path, run):
    write_extract(tmp_path / "monitor", served(run))
    say("template", tmp_path / "card.yaml")
    text = (tmp_path / "card.yaml").read_text()
    text = text.replace("said_by:", "said_by: Dr. Ada").replace("  funding:", "  funding: the hospital")
    (tmp_path / "card.yaml").write_text(text)
    files = [tmp_path / f"card.{kind}" for kind in ("html", "xml", "json")]
    told = say(
        "write",
        tmp_path / run.run_id,
        *("--card", tmp_path / "card.yaml", "--extract", tmp_path / "monitor", "--profile", "hti1"),
        *("--html", files[0], "--xml", files[1], "--json", files[2]),
    )
    assert "31 answered" in told
    paper = json.loads(files[2].read_bytes())
    items = {each["number"]: each for each in paper["papers"]["hti1"]["items"]}
    assert items["(B)(1)(ii)"]["state"] == "answered"
    assert items["(B)(8)(ii)"]["answered_by"] == ["local_validity"]
    assert "intended_use" in paper["missing"]
    assert b"the hospital" in files[0].read_bytes()
    assert files[1].read_bytes().startswith(b"<?xml")
    assert "missing: Who is to use it (card.yaml: users)" in say("write", tmp_path / run.run_id)


def test_an_extract_without_the_runs_bundle_tells_nothing_of_it(tmp_path, run):
    write_extract(tmp_path / "monitor", packets(50, trial=False))
    assert read_service(tmp_path / "monitor", run) is None


def test_only_ripe_outcomes_of_silent_packets_are_measured(run):
    frame = served(run)
    whole = service_of(frame, now=NOW)
    due = (frame["kind"] == "scored") & (frame["label_ripe_at"] <= pd.Timestamp(NOW))
    assert (whole.requests, whole.ripe) == (600, due.sum())
    assert isinstance(whole.performance, Performance)
    assert whole.performance.rows == (due & (frame["label_kind"] == "observed")).sum()
    assert isinstance(service_of(served(run, mode="live"), now=NOW).performance, str)
    assert isinstance(service_of(served(run, label_value=41.5), now=NOW).performance, str)
    earlier = frame["received_at"].min().to_pydatetime()
    assert service_of(frame, now=earlier).ripe == 0


def test_nobody_waits_for_a_shadow(run):
    assert service_of(served(run, channel="shadow"), now=NOW).latency_ms == "no answer that somebody waited for"


def test_the_95th_percentile_lies_between_two_order_statistics():
    # n = 1000: 950 ± 1.96 √(1000 · 0.95 · 0.05) = 950 ± 13.51, of values that are their own ranks.
    assert percentile_95(np.arange(1_000.0, 0.0, -1.0)) == Estimate(value=950.0, low=937.0, high=964.0)
    # n = 60: 57 ± 3.31 reaches past the largest.
    assert percentile_95(np.ones(60)) == "too few answers that somebody waited for"


def test_held_out_figures_come_of_the_runs_own_report_without_the_counts_of_small_groups(tmp_path, bundle_files, run):
    folder = tmp_path / run.run_id
    manifest = parse_manifest((folder / "bundle" / "manifest.json").read_bytes())
    # Of 400 rows, the first 9 are of a third group; of the others 195 are female, and 196 male.
    write_report(folder, manifest=manifest, evaluation=evaluated(resamples=20))
    held_out = read_run_files(folder).held_out
    assert (held_out.rows, held_out.patients) == (400, 200)
    assert isinstance(held_out.figures["auroc"], Estimate)
    groups = {group.called: group for group in held_out.groups}
    assert groups["sex <b>other</b>"].auroc == "under 20 rows"
    # The smaller of the two large ones is not counted either: it would give the small one away.
    assert [name for name, group in groups.items() if group.rows is not None] == ["sex male"]
    other = write_run(tmp_path, bundle_files, version="2.0.0")
    (tmp_path / other.run_id / "report.json").write_bytes((folder / "report.json").read_bytes())
    with pytest.raises(CommandFailed, match="got another's"):
        read_run_files(tmp_path / other.run_id)


def test_another_runs_bundle_is_refused(tmp_path, bundle_files, run):
    other = write_run(tmp_path, bundle_files, version="2.0.0")
    manifests = [tmp_path / each.run_id / "bundle" / "manifest.json" for each in (run, other)]
    manifests[0].write_bytes(manifests[1].read_bytes())
    with pytest.raises(CommandFailed, match="expected the bundle that"):
        say("write", tmp_path / run.run_id)


def test_a_template_is_not_written_over_a_card_that_is_there(tmp_path):
    (tmp_path / "card.yaml").write_text("mine")
    with pytest.raises(CommandFailed, match="not there yet"):
        say("template", tmp_path / "card.yaml")
    assert (tmp_path / "card.yaml").read_text() == "mine"


def test_an_unknown_profile_or_parity_report_is_refused(tmp_path, run):
    with pytest.raises(CommandFailed, match="tripod-ai"):
        say("write", tmp_path / run.run_id, "--profile", "tripod")
    (tmp_path / "parity.json").write_text('{"orders": 3}')
    with pytest.raises(CommandFailed, match="features_compared"):
        read_parity(tmp_path / "parity.json")
