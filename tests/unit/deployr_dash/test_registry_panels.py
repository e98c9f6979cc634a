"""What the registry's pages show of a run, of a comparison, and of a model that answers elsewhere."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pandas as pd
import pytest

from deployr_core.governance.bars import OURS
from deployr_core.governance.checklist import SIGNATURE, Evidence, checklist, for_journal
from deployr_core.model_format import MODEL_FILE, MODEL_FILES, ModelFormat
from deployr_core.registry.comparison import Rows
from deployr_core.registry.journal import Action, Head
from deployr_dash.panels.beside import beside
from deployr_dash.panels.elsewhere import answered_by
from deployr_dash.panels.of_a_run import go_or_no_go, held_out, signature, what_went_in
from deployr_dash.registry import journal_of
from deployr_plots.figures import Points
from tests.registry_parts import deed, write_run
from tests.registry_parts import journal_of as entries_of
from tests.registry_site import compared
from tests.unit.deployr_dash.made_up import manifest, packets, view


@pytest.fixture
def runs(tmp_path, bundle_files):
    return [write_run(tmp_path, bundle_files, version=version) for version in ("1.1.0", "1.2.0")]


def test_a_run_says_what_it_was_trained_from_by_digest(runs):
    panel = what_went_in(runs[0], manifest(), "9" * 64)
    assert panel.said[0] == "8 rows of 8 patients from eicu-demo, by ada."
    sets, digests = (each.table for each in panel.tables)
    assert sets.rows[0] == ("training", 8, 8, 4, "2014-01-01", "2014-12-31", "1" * 12, "2" * 12)
    assert [row[0] for row in sets.rows] == ["training", "test"]
    assert ("run.json", "9" * 64) in digests.rows
    assert ("bundle", runs[0].bundle_sha256) in digests.rows


def test_held_out_figures_are_drawn_with_their_intervals(runs):
    panel = held_out(runs[0], manifest())
    assert panel.said[0].startswith("AUROC 0.750 (0.500 to 1.000), on 8 rows")
    [figure] = panel.figures
    [points] = [each for each in figure.marks if isinstance(each, Points)]
    assert (points.x, points.low, points.high) == ((0.75,), (0.5,), (1.0,))
    assert held_out(msgspec.structs.replace(runs[0], test={}), manifest()).missing is not None


def test_a_bundle_that_nobody_signed_says_why():
    nobody = (None, "expected a key")
    assert signature(nobody, nobody).missing.count("not signed by anybody whom this site trusts: expected a key.") == 2
    assert signature(("4f2a", ""), nobody).said == (
        "The run’s record is not signed by anybody whom this site trusts: expected a key.",
        "The bundle is signed by the site’s key 4f2a.",
    )


def test_what_did_not_pass_is_told_by_sign_and_word_and_the_signature_is_the_registrys_own():
    items = checklist(Evidence(signed_by="k"), OURS.of("hematocrit"))
    verdicts = {row[0].strip("`"): row[2] for row in go_or_no_go(items).tables[0].table.rows}
    assert (verdicts["signature"], verdicts["parity"]) == ("✓ passed", "? cannot be told")
    assert SIGNATURE not in {each.item for each in for_journal(items)}
    assert len(for_journal(items)) == len(items) - 1


def test_differences_are_drawn_so_that_right_is_better_whichever_way_a_figure_is_good(runs):
    comparison = compared(runs[1], runs[0])
    panel = beside(comparison, against=runs[0].run_id)
    whole, groups = panel.figures
    [points] = [each for each in whole.marks if isinstance(each, Points)]
    names = whole.y.names
    # The Brier score fell by 0.011 (0.02 to 0.003): that much better.
    place = names.index("Brier score")
    assert (points.x[place], points.low[place], points.high[place]) == (0.011, 0.003, 0.02)
    assert points.x[names.index("AUROC")] == 0.024
    assert whole.x.title.endswith("right: the challenger is better")
    # The farthest bound is 0.051, so that the axis goes to the next round number, the same both ways.
    assert (whole.x.low, whole.x.high) == (-0.06, 0.06)
    assert groups.y.names == ("sex: female", "sex: male", "age: 18 to 64", "age: 65 and over", "age: under 18")
    verdicts = {row[0]: row[-1] for each in panel.tables for row in each.table.rows}
    assert (verdicts["Brier score"], verdicts["age: 65 and over"], verdicts["age: under 18"]) == (
        "better",
        "worse",
        "not measurable",
    )
    assert panel.said[0].startswith("By AUROC the challenger is better")
    assert any("12 patients left out" in note for note in panel.notes)


def test_a_comparison_with_another_than_todays_champion_says_so_first(runs):
    comparison = msgspec.structs.replace(compared(runs[1], runs[0]), rows_are=Rows.LIVE)
    panel = beside(comparison, against="hematocrit-1")
    assert (panel.name, "not against today’s champion" in panel.said[0]) == ("beside-live", True)


def test_a_journal_that_was_changed_has_a_fault_and_no_standing():
    entries = entries_of(deed(Action.REGISTERED, "a"), deed(Action.RETIRED, "a", who="grace", role="approver", why="x"))
    whole = journal_of(entries, model_id="hematocrit", heads=[entries[-1].head])
    assert (whole.fault, list(whole.standing.runs), whole.compared) == (None, ["a"], 1)
    cut = journal_of(entries[:1], model_id="hematocrit", heads=[entries[-1].head])
    assert (cut.fault.number, cut.standing) == (2, None)
    # Right digests, but a run cannot be deployed that nobody approved.
    impossible = entries_of(deed(Action.REGISTERED, "a"), deed(Action.DEPLOYED, "a"))
    found = journal_of(impossible, model_id="hematocrit", heads=[Head(number=1, sha256=impossible[0].sha256)])
    assert (found.fault.number, found.standing) == (2, None)


def test_the_names_under_which_scores_came_are_told_with_since_when():
    season = packets(300, trial=False)
    half = season["received_at"] >= season["received_at"].iloc[150]
    names = pd.Series("net 1.0", index=season.index).where(~half, "net 1.1")
    panel = answered_by(view(season.assign(answered_by=names.where(season["kind"] == "scored"))))
    assert panel.said[0] == "Scored elsewhere, last by net 1.1."
    assert panel.said[1].startswith("2 names in this window: net 1.1 answers since 2015-02-")
    first, second = panel.tables[0].table.rows
    assert (first[0], second[0]) == ("net 1.1", "net 1.0")
    assert first[3] + second[3] == int((season["kind"] == "scored").sum())


def test_a_model_that_was_changed_back_answers_again_since_its_last_stretch_began():
    season = packets(30, trial=False).assign(kind="scored")
    names = pd.Series(["net 1.0"] * 10 + ["net 1.1"] * 10 + ["net 1.0"] * 10)
    panel = answered_by(view(season.assign(answered_by=names)))
    back = season["received_at"].iloc[20]
    assert panel.said[0] == "Scored elsewhere, last by net 1.0."
    assert panel.said[1] == f"2 names in this window: net 1.0 answers again since {back:%Y-%m-%d %H:%M} UTC."
    assert [(row[0], row[3]) for row in panel.tables[0].table.rows] == [("net 1.0", 20), ("net 1.1", 10)]


def test_of_two_names_at_the_same_instant_one_is_said_to_answer_since_then():
    at = packets(2, trial=False)["received_at"].iloc[0]
    both = packets(2, trial=False).assign(kind="scored", received_at=at, answered_by=["net 1.0", "net 1.1"])
    assert answered_by(view(both)).said[1].endswith(f"answers since {at:%Y-%m-%d %H:%M} UTC.")


def test_a_model_in_its_bundle_has_no_name_and_one_elsewhere_may_tell_none():
    seen = view(packets(50, trial=False))
    assert "from the bundle itself" in (answered_by(seen).missing or "")
    parts = {name: part for name, part in manifest().parts.items() if name != MODEL_FILE}
    parts[MODEL_FILES["http"]] = manifest().parts[MODEL_FILE]
    elsewhere = msgspec.structs.replace(manifest(), model=ModelFormat(kind="http"), parts=parts)
    nameless = answered_by(replace(seen, manifests={"3d4e5f": elsewhere, "0a1b2c": elsewhere}))
    assert nameless.said == ("Scored elsewhere, last without a name.",)
    assert nameless.notes
