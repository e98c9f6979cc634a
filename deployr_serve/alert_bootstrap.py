"""Puts alerts together: rules, sinks, the desk that all workers share, and the app's own watch."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from deployr_core.monitoring.alert_rules import AlertRules, parse_alert_rules
from deployr_core.strict_yaml import YamlInvalid
from deployr_serve.adapters.alert_sinks import (
    AlertCommunication,
    AlertLog,
    AlertMail,
    AlertWebhook,
    MailServer,
    Posted,
    signed,
)
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.outputs_fhir import FhirWriter
from deployr_serve.adapters.tls import tls_context
from deployr_serve.alert_settings import AlertSettings
from deployr_serve.bootstrap import Application
from deployr_serve.core.alert_desk import AlertDesk, AlertSink, Message
from deployr_serve.core.alert_tallies import Tallies
from deployr_serve.core.alert_watch import AlertWatch
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock, Records
from deployr_serve.outputs.alert_messages import slack_blocks, teams_card
from deployr_serve.settings import Settings


def read_rules(settings: AlertSettings) -> AlertRules:
    """Give the rules in force.

    Raises:
        SettingsInvalid: the site's file is not what it must be.
    """
    if settings.rules is None:
        return AlertRules()
    try:
        return parse_alert_rules(settings.rules.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"settings: DEPLOYR_ALERT_RULES: cannot be read ({error.strerror})") from None
    except YamlInvalid as error:
        raise SettingsInvalid(f"settings: DEPLOYR_ALERT_RULES: {error}") from None


def desk_of(
    settings: Settings, rules: AlertRules, *, records: Records, clock: Clock, sinks: tuple[AlertSink, ...] = ()
) -> AlertDesk:
    """Give the desk of a site; without sinks to look at what stands, and to silence."""
    return AlertDesk(
        rules=rules,
        sinks=sinks,
        records=records,
        clock=clock,
        site=settings.site,
        environment=settings.environment,
    )


def watch_of(settings: Settings, application: Application) -> AlertWatch:
    """Give what the app's timer looks with.

    Raises:
        SettingsInvalid: as `read_rules` and `sinks_of`.
    """
    services, rules = application.services, read_rules(settings.alerts)
    sinks = sinks_of(settings, application)
    return AlertWatch(
        services=services,
        desk=desk_of(settings, rules, records=services.records, clock=services.clock, sinks=sinks),
        own_desk=desk_of(settings, rules, records=MemoryStore(), clock=services.clock, sinks=sinks),
        tallies=Tallies(
            services.store,
            services.records,
            clock=services.clock,
            site=settings.site,
            slow_s=rules.rules.latency.of_deadline * settings.deadline_s,
        ),
        zone=settings.zone,
    )


def sinks_of(settings: Settings, application: Application) -> tuple[AlertSink, ...]:
    """Give the sinks that are configured, the log first; nothing is sent.

    Raises:
        SettingsInvalid: the certificates cannot be read.
    """
    alerts, clock, network = settings.alerts, application.services.clock, application.network
    dashboard = alerts.dashboard

    def webhook(name: str, url: str, render: Callable[[Message], Posted]) -> AlertWebhook:
        return AlertWebhook(name, url=url, render=render, transport=network, clock=clock)

    sinks: list[AlertSink] = [AlertLog()]
    if alerts.teams_url is not None:
        sinks.append(
            webhook("teams", alerts.teams_url, lambda each: Posted(body=teams_card(each, dashboard=dashboard)))
        )
    if alerts.slack_url is not None:
        sinks.append(
            webhook("slack", alerts.slack_url, lambda each: Posted(body=slack_blocks(each, dashboard=dashboard)))
        )
    if alerts.webhook_url is not None and alerts.webhook_key is not None:
        render = signed(alerts.webhook_key, dashboard=dashboard, clock=clock)
        sinks.append(webhook("webhook", alerts.webhook_url, render))
    if alerts.mail is not None:
        mail = alerts.mail
        server = MailServer(
            host=mail.server,
            port=mail.port,
            tls=_tls(settings.ca_file) if mail.tls else None,
            sender=mail.sender,
            recipients=mail.recipients,
            user=mail.user,
            password=mail.password,
        )
        sinks.append(AlertMail(server, dashboard=dashboard, threads=application.services.threads, clock=clock))
    if alerts.fhir_recipients:
        writer = FhirWriter(
            base=settings.fhir_base,
            transport=application.transport,
            credentials=application.access.fhir,
            search_by_get=settings.search_by_get,
        )
        sinks.append(AlertCommunication(writer, recipients=alerts.fhir_recipients, dashboard=dashboard, clock=clock))
    return tuple(sinks)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return tls_context(ca_file)
    except (OSError, ssl.SSLError):
        raise SettingsInvalid("settings: DEPLOYR_EMR_CA_FILE: expected certificates in PEM") from None
