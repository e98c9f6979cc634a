"""When labels are extracted: by the site's schedule or the model's own, and once more for corrections."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from deployr_core.packet import Mode
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.outcome_source import OutcomeFacts
from deployr_serve.core.policy import Policy
from deployr_serve.label_settings import LabelSettings
from deployr_serve.settings import read_settings
from label_extractors.blueprint import label_blueprint
from label_extractors.pace import Pace, pace_of

SETTINGS = LabelSettings(
    schedule="0 7 * * * *",
    review_schedule="0 37 3 * * *",
    corrections=timedelta(days=30),
    adherence_hours=24,
    budget_s=240,
)


@pytest.fixture
def timers(services_of, models_of, bundle, outcomes_of):
    """Give a function that gives the timers by name, of the model hematocrit and of one with a schedule of its own."""

    import azure.functions as func

    def make(outcomes=None):
        own = Policy(schema_version=1, model="length-of-stay", mode=Mode.LIVE, label_schedule="0 0 6 * * *")
        services = services_of(models=models_of(hematocrit=bundle, length_of_stay=bundle), policies=(own,))
        app = func.FunctionApp()
        app.register_functions(label_blueprint(services, outcomes or outcomes_of(), SETTINGS))
        functions = {function.get_function_name(): function for function in app.get_functions()}
        return services, functions

    return make


def test_a_model_with_a_schedule_of_its_own_has_a_timer_of_its_own(timers):
    _, functions = timers()
    assert {name: function.get_trigger().schedule for name, function in functions.items()} == {
        "extract_labels": "0 7 * * * *",
        "extract_labels_length_of_stay": "0 0 6 * * *",
        "review_labels": "0 37 3 * * *",
    }


async def test_each_timer_labels_its_own_models(timers, packet_of, clock, caplog):
    caplog.set_level(logging.INFO)
    services, functions = timers()
    await services.store.create(packet_of("p01"))
    await services.store.create(packet_of("p02", model_id="length-of-stay"))
    clock.pass_time(2 * 24 * 3600)
    said = []
    for name in ("extract_labels", "extract_labels_length_of_stay", "review_labels"):
        clock.pass_time(60)
        await functions[name].get_user_function()(None)
        said.append(caplog.messages[-1])
    assert said == [
        "labels: run=all censored=1",
        "labels: run=length-of-stay censored=1",
        "labels: run=review unchanged=2",
    ]
    assert (await services.store.read_label("p01.lab-component")) is not None


async def test_what_somebody_should_look_at_is_said_as_an_alert_and_nothing_of_a_patient(
    timers, outcomes_of, packet_of, clock, caplog
):
    services, functions = timers(outcomes_of(**{"CANARY-1": RuntimeError("CANARY-2"), "p2": OutcomeFacts()}))
    await services.store.create(packet_of("p01", patient_id="CANARY-1", order_id="CANARY-3"))
    clock.pass_time(2 * 24 * 3600)
    with caplog.at_level(logging.DEBUG):
        await functions["extract_labels"].get_user_function()(None)
    ours = [record for record in caplog.records if record.name.startswith("label_extractors")]
    assert [record.getMessage() for record in ours if record.levelno == logging.WARNING] == [
        "alert=labels-failed run=all packets=1"
    ]
    assert "failed:unexpected=1" in caplog.text
    assert "CANARY" not in caplog.text


# -- settings

SITE = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}


def test_a_site_that_says_nothing_extracts_each_hour_and_reviews_each_night():
    assert read_settings(SITE).labels == SETTINGS


def test_a_site_says_when_and_how_much():
    read = read_settings(
        {
            **SITE,
            "DEPLOYR_LABEL_SCHEDULE": "0 */10 * * * *",
            "DEPLOYR_LABEL_REVIEW_SCHEDULE": "0 0 2 * * sun",
            "DEPLOYR_LABEL_CORRECTION_DAYS": "0",
            "DEPLOYR_ADHERENCE_HOURS": "2",
            "DEPLOYR_LABEL_BUDGET_S": "60",
        }
    ).labels
    assert (read.schedule, read.review_schedule) == ("0 */10 * * * *", "0 0 2 * * sun")
    assert pace_of(read) == Pace(budget_s=60, corrections=timedelta(0), adherence_hours=2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEPLOYR_LABEL_SCHEDULE", "hourly", "six fields"),
        ("DEPLOYR_LABEL_REVIEW_SCHEDULE", "* * * * *", "six fields"),
        ("DEPLOYR_LABEL_CORRECTION_DAYS", "367", "0 to 366 days"),
        ("DEPLOYR_LABEL_CORRECTION_DAYS", "-1", "0 to 366 days"),
        ("DEPLOYR_ADHERENCE_HOURS", "0", "1 to 8784 hours"),
        ("DEPLOYR_LABEL_BUDGET_S", "9", "10 to 3600 seconds"),
        ("DEPLOYR_LABEL_BUDGET_S", "1.5", "10 to 3600 seconds"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name, value, expected):
    with pytest.raises(SettingsInvalid, match=f"{name}: .*{expected}"):
        read_settings({**SITE, name: value})


def test_a_schedule_in_a_deployment_file_is_checked_where_it_is_read():
    with pytest.raises(ValueError, match="six fields"):
        Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, label_schedule="daily")
