"""What the dashboard sends, to the app itself on the function host: roles decide, and the journal says so."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from deployr_cli.dash_deeds import AppDeeds
from deployr_cli.dash_registry import SiteRegistry
from deployr_cli.demo.processes import function_app
from deployr_core.governance.checklist import for_journal
from deployr_dash.deeds import DEEDS, Ended, Wanted
from tests.registry_parts import basic
from tests.registry_site import RegistrySite

pytestmark = [pytest.mark.slow, pytest.mark.proof]
KEY = "of-the-routes-of-this-test"


@contextmanager
def hosted(site):
    """Run the app of a site, and give its address."""
    command = [sys.executable, "-m", "deployr_serve.local_host", "--app", str(function_app()), "--port", "0"]
    command += ["--settings", str(site.settings), "--state", str(site.folder / "timers"), "--log-level", "WARNING"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "DEPLOYR_HOST_FUNCTION_KEY": KEY, "DEPLOYR_HOST_MASTER_KEY": f"{KEY}-master"},
    )
    try:
        ready = next((line for line in process.stdout if line.startswith("Ready ")), "")
        assert ready, "the host ended before it listened; its words are above"
        yield ready.removeprefix("Ready ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_run_goes_live_and_back_by_the_dashboard_and_refusals_are_told_and_kept(tmp_path, bundle_files):
    site = RegistrySite(tmp_path, bundle_files)
    asyncio.run(site.write())
    reader = SiteRegistry(site.settings, environ={}, extract=tmp_path / "none", plans=None)
    run = site.challenger.run_id
    items = for_journal(reader.card("hematocrit", run).checklist)

    with hosted(site) as address:

        def done(verb, by, *, key=KEY, **said):
            wanted = Wanted(deed=DEEDS[verb], model_id="hematocrit", run_id=run, **said)
            return AppDeeds(address, key=key).send(wanted, authorization=basic(by)["Authorization"])

        assert "DEPLOYR_DASH_APP_KEY" in done("approve", "grace", why="good", key="another").said[-1]
        assert done("deploy", "vic").said[0] == "Your role does not allow this."
        assert "second pair of eyes" in done("approve", "ada", why="mine", despite=True, checklist=items).said[0]
        unmet = done("approve", "grace", why="good", checklist=items)
        assert (unmet.ended, "the checklist is not met" in unmet.said[0]) == (Ended.REFUSED, True)
        approved = done("approve", "grace", why="good", despite=True, checklist=items)
        # Twelve entries were there; the viewer, the trainer and the checklist left one each.
        assert approved.said[0] == "Done, by grace as approver: entry 16 of the journal."
        assert done("deploy", "dev").ended is Ended.DONE
        live = reader.journal("hematocrit")
        assert (live.standing.champion, reader.in_place("hematocrit")) == (run, site.challenger.bundle_sha256)
        assert done("rollback", "dev", why="alarms at night").ended is Ended.DONE
        assert done("reject", "vic", why="I saw it, too").ended is Ended.REFUSED

    # The pages work while the app is down.
    journal = reader.journal("hematocrit")
    assert (journal.fault, journal.standing.champion) == (None, site.champion.run_id)
    assert [(each.action, each.who) for each in journal.entries[12:]] == [
        ("refused", "vic"),
        ("refused", "ada"),
        ("refused", "grace"),
        ("approved", "grace"),
        ("deployed", "dev"),
        ("rolled-back", "dev"),
        ("refused", "vic"),
    ]
    # The signature stands on every approval under the registry's own name, beside the comparison.
    assert len(journal.entries[15].checklist) == 2 + len(items)
