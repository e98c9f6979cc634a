"""`deployr deliveries duplicates` against a mock EMR that holds a flag of ours twice."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from deployr_cli.duplicates import look_for_duplicates, show
from deployr_cli.failures import CommandFailed
from deployr_serve.settings import read_settings


@pytest.fixture
async def site(chart_of, emr_of, app_of, bundles_folder, tmp_path):
    """Give the settings of a site that has written one flag, the EMR, and the delivery's id."""
    emr = await emr_of(*chart_of("p1", "e1", "o1", "42", "lab1", value=30, birth="1950-01-01"))
    app = app_of(emr.url, DEPLOYR_OUTPUTS="flag|risk-assessment")
    response = await app.infer()
    await app.application.aclose()
    settings = read_settings(
        {
            "DEPLOYR_BUNDLES": str(bundles_folder),
            "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "DEPLOYR_EMR_FHIR_BASE": f"{emr.url}/api/FHIR/R4",
            "DEPLOYR_EMR_VENDOR_BASE": emr.url,
            "DEPLOYR_CLOCK_FILE": str(tmp_path / "clock"),
            "DEPLOYR_OUTPUTS": "flag|risk-assessment",
        }
    )
    return settings, emr, f"{response.headers['X-Packet-Id']}.flag"


async def looked(settings, **asked):
    found = await look_for_duplicates(settings, **{"days": 1, "output": None, "mark": False, **asked})
    said = io.StringIO()
    show(found, Console(file=said, width=200))
    return found, said.getvalue()


async def test_what_stands_there_once_is_no_duplicate(site):
    settings, _, _ = site
    found, said = await looked(settings)
    assert (found.deliveries, found.failed, found.found) == (1, 0, ())
    assert said == "0 of 1 deliveries stand in the EMR more than once\n"


async def test_what_another_system_copied_is_reported_without_the_patient(site, now):
    settings, emr, delivery_id = site
    [flag] = emr.parts.written.resources()
    emr.parts.written.create({name: value for name, value in flag.items() if name not in {"id", "meta"}}, now=now)
    found, said = await looked(settings, output="flag")
    [one] = found.found
    assert (one.delivery_id, one.kept, one.others) == (delivery_id, "w1", ("w2",))
    assert f"{delivery_id}: Flag w1 kept, also w2\n" in said
    assert "Patient" not in said
    assert len(emr.parts.written.resources()) == 2


async def test_marked_the_copy_stays_and_says_that_it_is_an_error(site, now):
    settings, emr, _ = site
    [flag] = emr.parts.written.resources()
    emr.parts.written.create({name: value for name, value in flag.items() if name not in {"id", "meta"}}, now=now)
    found, _ = await looked(settings, mark=True)
    assert (found.found[0].marked, found.found[0].refusal) == (("w2",), None)
    stands = {each["id"]: each["status"] for each in emr.parts.written.resources()}
    assert stands == {"w1": flag["status"], "w2": "entered-in-error"}


async def test_an_emr_that_cannot_be_asked_is_counted(site):
    settings, _, _ = site
    found, said = await looked(replace(settings, fhir_base="http://127.0.0.1:1/api/FHIR/R4"))
    assert (found.deliveries, found.failed) == (1, 1)
    assert "about 1 it could not be asked" in said


async def test_without_a_way_out_over_fhir_there_is_nothing_to_look_for(site):
    settings, _, _ = site
    with pytest.raises(CommandFailed, match="DEPLOYR_OUTPUTS"):
        await looked(settings, output="score-column")
