"""The registry as the dashboard reads it, from a site's store and shelf, and deeds on their way to the app."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from deployr_cli.dash_deeds import AppDeeds
from deployr_cli.dash_registry import SiteRegistry
from deployr_core.governance.checklist import Verdict
from deployr_core.registry.comparison import Rows
from deployr_core.registry.standing import Stage
from deployr_dash.answering import answering, followed
from deployr_dash.away import StoreAway
from deployr_dash.deeds import DEEDS, UNANSWERED, UNREACHED, Ended, Wanted
from deployr_dash.references import reference_file
from deployr_dash.registry import NothingOfTheRun
from deployr_dash.sign_in import SignIn, SignInKind
from deployr_dash.sources import Sources
from tests.registry_app import app, hangs_up, redirects, refuses
from tests.registry_site import RegistrySite
from tests.unit.deployr_dash.made_up import NOW, write_extract

WANTED = Wanted(deed=DEEDS["reject"], model_id="hematocrit", run_id="r1", why="too old")


def site_in(folder, bundle_files):
    made = RegistrySite(folder, bundle_files)
    asyncio.run(made.write())
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory, bundle_files):
    """Give a site with an extract; no test changes it."""
    made = site_in(tmp_path_factory.mktemp("site"), bundle_files)
    write_extract(made.folder / "extract", *made.frames(300))
    return made


@pytest.fixture
def own_site(tmp_path, bundle_files):
    """Give a site of the test's own, without an extract."""
    return site_in(tmp_path, bundle_files)


def reader_of(site, *, plans=None):
    return SiteRegistry(site.settings, environ={}, extract=site.folder / "extract", plans=plans)


def test_every_journal_is_found_and_recomputed(site):
    reader = reader_of(site)
    journal, *others = reader.journals()
    assert [each.model_id for each in others] == ["magnesium", "potassium"]
    assert journal == reader.journal("hematocrit")
    # Registered, approved, deployed; the second compared, too; one rejected; one compared, and refused to its trainer.
    assert (len(journal.entries), journal.fault, journal.compared) == (3 + 4 + 2 + 3, None, 2)
    assert journal.standing.champion == site.champion.run_id
    assert [run.run_id for run in journal.standing.at(Stage.CHALLENGER)] == [site.challenger.run_id]
    assert [each.action for each in journal.about(site.challenger.run_id)] == ["registered", "compared", "refused"]
    assert reader.in_place("hematocrit") == site.champion.bundle_sha256
    assert (reader.journal("troponin"), reader.journal("../hematocrit"), reader.in_place("potassium")) == (None,) * 3


def test_a_forged_entry_is_named_and_nothing_follows_from_its_journal(site):
    journal = reader_of(site).journal("magnesium")
    assert (journal.fault.number, journal.standing, len(journal.entries)) == (2, None, 3)


def test_what_was_cut_off_is_missed_by_what_others_were_told(own_site):
    with closing(sqlite3.connect(own_site.folder / "store.sqlite")) as db, db:
        db.execute("DELETE FROM records WHERE kind = 'journal.hematocrit' AND record_id = '00000012'")
    fault = reader_of(own_site).journal("hematocrit").fault
    assert (fault.number, "expected 12 entries" in fault.said) == (12, True)


def test_a_run_is_read_from_the_shelf_and_what_is_no_run_says_so(site):
    reader = reader_of(site)
    assert reader.run("hematocrit", site.challenger.run_id).comparison.champion.name == site.champion.run_id
    for run_id in ("hematocrit-0", "../../etc"):
        for ask in (reader.run, reader.card):
            with pytest.raises(NothingOfTheRun):
                ask("hematocrit", run_id)


def test_the_checklist_is_of_the_extract_and_of_the_sites_own_bars(site, tmp_path):
    verdicts = {each.item: each for each in reader_of(site).card("hematocrit", site.challenger.run_id).checklist}
    assert (verdicts["signature"].verdict, verdicts["days"].verdict) == (Verdict.PASSED, Verdict.PASSED)
    assert verdicts["parity"].verdict is Verdict.UNTOLD
    plans = tmp_path / "hematocrit"
    plans.mkdir()
    bars = 'schema_version: 1\nevery_model:\n  days: {bar: 400, because: "the committee wants a year"}\n'
    (plans.parent / "bars.yaml").write_text(bars)
    (plans / "parity.json").write_text(json.dumps({"orders": 40, "features_compared": 400, "features_equal": 400}))
    (plans / "card.yaml").write_text("schema_version: 1\nsaid_by: grace\nanswers:\n  users: Ward physicians\n")
    card = reader_of(site, plans=tmp_path).card("hematocrit", site.challenger.run_id)
    verdicts = {each.item: each.verdict for each in card.checklist}
    assert (verdicts["days"], verdicts["parity"]) == (Verdict.FAILED, Verdict.PASSED)
    assert card.known["users"].lines == ("Ward physicians",)


def test_a_reference_period_that_cannot_be_read_is_said_in_place_of_the_papers(own_site):
    extract = own_site.folder / "extract"
    write_extract(extract, *own_site.frames(50))
    reference = reference_file(extract, own_site.challenger.bundle_sha256)
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_bytes(b"{")
    with pytest.raises(NothingOfTheRun, match="reference"):
        reader_of(own_site).card("hematocrit", own_site.challenger.run_id)


def test_a_damaged_extract_is_said_in_place_of_what_would_be_told_from_it(own_site):
    extract = own_site.folder / "extract"
    write_extract(extract, *own_site.frames(50))
    for file in (extract / "packets").glob("*.parquet"):
        file.write_bytes(b"PAR1")
    for ask in (reader_of(own_site).card, reader_of(own_site).live):
        with pytest.raises(NothingOfTheRun):
            ask("hematocrit", own_site.challenger.run_id)
    pytest.importorskip("streamlit", reason="needs streamlit: deployr[dash] installs it")
    from deployr_dash.screens.registry_parts import lately

    assert lately(Sources(extract=extract, sign_in=SignIn(kind=SignInKind.NONE), now=lambda: NOW)) is None


def test_without_an_extract_there_is_a_checklist_that_tells_little(own_site, monkeypatch):
    # One of another site's lies where the command line would look.
    write_extract(own_site.folder / ".deployr" / "monitor", *own_site.frames(50))
    monkeypatch.chdir(own_site.folder)
    assert reader_of(own_site).card("hematocrit", own_site.champion.run_id).service is None
    card = reader_of(own_site).card("potassium", own_site.first.run_id)
    assert {each.verdict for each in card.checklist} == {Verdict.FAILED, Verdict.UNTOLD}
    with pytest.raises(NothingOfTheRun, match="extract"):
        reader_of(own_site).live("hematocrit", own_site.challenger.run_id)


def test_a_shadow_is_compared_with_the_champion_by_its_run(site):
    live = reader_of(site).live("hematocrit", site.challenger.run_id)
    assert (live.rows_are, live.champion.name) == (Rows.LIVE, site.champion.run_id)
    assert live.challenger.bundle_sha256 == site.challenger.bundle_sha256


def test_what_answered_lately_is_told_by_bundle_and_shadows_by_their_run(site):
    found = {each.name: each for each in answering(site.folder / "extract", until=NOW)}
    assert set(found) == {"hematocrit", site.challenger.run_id}
    served, shadow = found["hematocrit"], found[site.challenger.run_id]
    assert (served.bundle_sha256, served.where) == (site.champion.bundle_sha256, "site, test")
    assert (served.is_shadow, shadow.is_shadow) == (False, True)
    assert 0 < served.packets == shadow.packets < 300


def test_a_shadows_packets_are_of_all_the_sites_where_it_followed(site):
    found = answering(site.folder / "extract", until=NOW)
    [shadow] = [each for each in found if each.is_shadow]
    elsewhere = replace(shadow, site="other", packets=7)
    assert followed([elsewhere, *found]) == {site.challenger.run_id: shadow.packets + 7}


@pytest.mark.parametrize("store", ["memory", "sqlite:gone/store.sqlite"])
def test_a_store_that_is_not_there_says_what_to_do(site, tmp_path, store):
    values = {**site.values, "DEPLOYR_STORE": store}
    (tmp_path / "other.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    reader = SiteRegistry(tmp_path / "other.json", environ={}, extract=site.folder / "extract", plans=None)
    with pytest.raises(StoreAway, match="DEPLOYR_STORE"):
        reader.journals()


def test_a_deed_goes_to_its_route_under_the_persons_own_proof():
    with app(refuses) as (base, asked):
        told = AppDeeds(base, key="of-the-routes").send(WANTED, authorization="Bearer of-grace")
    [(path, headers, body)] = asked
    assert path == "/api/registry/models/hematocrit/runs/r1/reject"
    assert (headers["Authorization"], headers["x-functions-key"]) == ("Bearer of-grace", "of-the-routes")
    assert body == {"why": "too old"}
    assert (told.ended, told.said[0]) == (Ended.REFUSED, "Your role does not allow this.")


def test_a_proof_does_not_follow_a_redirect():
    with app(redirects) as (base, asked):
        told = AppDeeds(base, key="").send(WANTED, authorization="Bearer of-grace")
    assert (len(asked), told.ended) == (1, Ended.REFUSED)


def test_without_an_answer_nobody_knows_and_without_a_connection_nothing_was_sent():
    with app(hangs_up) as (base, asked):
        assert AppDeeds(base, key="").send(WANTED, authorization="Bearer of-grace") == UNANSWERED
    assert len(asked) == 1
    assert AppDeeds(base, key="").send(WANTED, authorization="Bearer of-grace") == UNREACHED
