"""The settings of alerts: what they must be, and that no secret of theirs is repeated."""

from __future__ import annotations

import pytest

from deployr_core.monitoring.alert_rules import AlertRules
from deployr_serve.alert_bootstrap import read_rules
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings

SECRET = "s3cret-of-the-url"
MAIL = {
    "DEPLOYR_ALERT_MAIL_SERVER": "smtp.example.org:587",
    "DEPLOYR_ALERT_MAIL_FROM": "alerts@example.org",
    "DEPLOYR_ALERT_MAIL_TO": "ana@example.org, ben@example.org",
}


def settings_with(**values):
    least = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/R4"}
    return read_settings({**least, **values})


def test_without_any_the_app_looks_every_five_minutes_and_tells_the_log():
    alerts = settings_with().alerts
    assert alerts.schedule == "0 */5 * * * *"
    assert (alerts.rules, alerts.dashboard, alerts.teams_url, alerts.mail, alerts.fhir_recipients) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert read_rules(alerts) == AlertRules()


def test_all_sinks_can_be_configured():
    alerts = settings_with(
        **MAIL,
        DEPLOYR_ALERT_TEAMS_URL=f"https://teams.example/workflows/1?sig={SECRET}",
        DEPLOYR_ALERT_SLACK_URL="https://hooks.slack.example/services/T/B/x",
        DEPLOYR_ALERT_WEBHOOK_URL="https://ops.example/alerts",
        DEPLOYR_ALERT_WEBHOOK_KEY="k" * 32,
        DEPLOYR_ALERT_FHIR_RECIPIENTS="Group/on-call,PractitionerRole/7",
        DEPLOYR_DASHBOARD_BASE="https://dash.example/",
    ).alerts
    assert alerts.dashboard == "https://dash.example"
    assert alerts.fhir_recipients == ("Group/on-call", "PractitionerRole/7")
    assert (alerts.mail.server, alerts.mail.port, alerts.mail.tls) == ("smtp.example.org", 587, True)
    assert [address.addr_spec for address in alerts.mail.recipients] == ["ana@example.org", "ben@example.org"]
    assert SECRET not in repr(alerts)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"DEPLOYR_ALERT_TEAMS_URL": f"ftp://x/{SECRET}"}, "DEPLOYR_ALERT_TEAMS_URL: expected an http"),
        ({"DEPLOYR_ALERT_SLACK_URL": f"https://u:{SECRET}@x/"}, "DEPLOYR_ALERT_SLACK_URL: expected an http"),
        ({"DEPLOYR_ALERT_WEBHOOK_URL": "https://x/"}, "DEPLOYR_ALERT_WEBHOOK_KEY: expected both"),
        ({"DEPLOYR_ALERT_WEBHOOK_KEY": SECRET}, "DEPLOYR_ALERT_WEBHOOK_KEY: expected a secret of at least 32"),
        ({"DEPLOYR_ALERT_FHIR_RECIPIENTS": "Patient/1"}, "never a patient"),
        ({"DEPLOYR_ALERT_MAIL_SERVER": "smtp.example.org"}, "such as smtp.example.org:587"),
        ({**MAIL, "DEPLOYR_ALERT_MAIL_TO": "ana"}, "DEPLOYR_ALERT_MAIL_TO: expected a mail address"),
        ({**MAIL, "DEPLOYR_ALERT_MAIL_FROM": ""}, "DEPLOYR_ALERT_MAIL_FROM: expected whom"),
        ({**MAIL, "DEPLOYR_ALERT_MAIL_USER": "a"}, "DEPLOYR_ALERT_MAIL_PASSWORD: expected both"),
        (
            {
                **MAIL,
                "DEPLOYR_ALERT_MAIL_USER": "a",
                "DEPLOYR_ALERT_MAIL_PASSWORD": SECRET,
                "DEPLOYR_ALERT_MAIL_TLS": "none",
            },
            "expected TLS where a password is sent",
        ),
    ],
)
def test_what_cannot_be_is_refused_without_repeating_it(values, told):
    with pytest.raises(SettingsInvalid) as refused:
        settings_with(**values)
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)


def test_production_takes_neither_plain_http_nor_plain_mail():
    with pytest.raises(SettingsInvalid) as refused:
        settings_with(
            **MAIL,
            DEPLOYR_PROFILE="prod",
            DEPLOYR_ALERT_MAIL_TLS="none",
            DEPLOYR_ALERT_TEAMS_URL="http://teams.example/x",
        )
    assert "DEPLOYR_ALERT_TEAMS_URL: expected https" in str(refused.value)
    assert "DEPLOYR_ALERT_MAIL_TLS: expected mail over TLS" in str(refused.value)


def test_a_file_of_rules_that_is_wrong_stops_the_app_with_its_place(tmp_path):
    file = tmp_path / "alerts.yaml"
    file.write_text("schema_version: 1\nrules: {failures: {least: 1}}\n")
    with pytest.raises(SettingsInvalid, match=r"DEPLOYR_ALERT_RULES: rules.failures: unknown key 'least'"):
        read_rules(settings_with(DEPLOYR_ALERT_RULES=str(file)).alerts)
