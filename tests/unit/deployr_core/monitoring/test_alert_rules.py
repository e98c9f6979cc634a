"""The file of rules: what it may say, and what it changes."""

from __future__ import annotations

import pytest

from deployr_core.monitoring.alert_rules import NAMES, AlertRules, Rules, Severity, parse_alert_rules, rules_with_names
from deployr_core.monitoring.alert_words import WORDS
from deployr_core.monitoring.alerting_operations import OF_MODELS, OF_SITE
from deployr_core.monitoring.alerting_statistics import NAMES as NIGHTLY_NAMES
from deployr_core.strict_yaml import YamlInvalid
from deployr_dash.panels.tabs import TABS


def test_an_empty_file_leaves_every_default():
    assert parse_alert_rules(b"schema_version: 1\n") == AlertRules()


def test_a_model_changes_single_values_of_what_holds_for_all():
    rules = parse_alert_rules(
        b"""
schema_version: 1
remind_hours: 12
least: {mail: page}
rules:
  failures: {least_share: 0.1, severity: warn}
models:
  hematocrit:
    failures: {least_packets: 50}
    silence: {longest_hours: 26}
    drift: {enabled: false}
"""
    )
    own = rules.of("hematocrit")
    assert (own.failures.least_share, own.failures.least_packets, own.failures.severity) == (0.1, 50, Severity.WARN)
    assert (own.silence.longest_hours, own.drift.enabled) == (26.0, False)
    assert rules.of("other").failures.least_packets == Rules().failures.least_packets
    assert (rules.of("other").failures.least_share, rules.remind_hours) == (0.1, 12)
    assert rules.least == {"mail": Severity.PAGE}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("rules: {}", "expected the key 'schema_version'"),
        ("schema_version: 2", "expected schema_version 1"),
        ("schema_version: 1\nrules: {failure: {}}", "rules: expected rules of silence"),
        ("schema_version: 1\nrules: {failures: {least_shares: 0.1}}", "rules.failures: unknown key 'least_shares'"),
        ("schema_version: 1\nrules: {failures: {least_share: 5}}", "share from 0 to 1"),
        ("schema_version: 1\nrules: {failures: {least_share: much}}", "rules.failures: Expected `float`"),
        ("schema_version: 1\nrules: {failures: {severity: loud}}", "rules.failures: Invalid enum value 'loud'"),
        ("schema_version: 1\nrules: {failures: {begin_minutes: -1}}", "at least 0"),
        ("schema_version: 1\nrules: {silence: {false_alarms_per_year: 0}}", "above 0"),
        ("schema_version: 1\nrules: {labels-overdue: {least_packets: 0}}", "least_packets to be above 0"),
        ("schema_version: 1\nrules: {failure-trend: {least_packets: 0}}", "least_packets to be above 0"),
        ("schema_version: 1\nrules: {volume: {least_expected: 0}}", "least_expected to be above 0"),
        ("schema_version: 1\nrules: {evaluator: {nightly_hours: 0}}", "nightly_hours to be above 0"),
        ("schema_version: 1\nrules: {volume: {times: 1}}", "times to be above 1"),
        ("schema_version: 1\nmodels: {a: {store: {enabled: false}}}", "the whole site's"),
        ("schema_version: 1\nmodels: {a: {latency: {of_deadline: 0.5}}}", "of_deadline under rules"),
        ("schema_version: 1\nleast: {pager: page}", "least to name some of log, teams"),
        ("schema_version: 1\nremind_hours: 0", "remind_hours"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(content, told):
    with pytest.raises(YamlInvalid) as refused:
        parse_alert_rules(content.encode())
    assert told in str(refused.value)


def test_every_rule_is_looked_at_by_one_of_the_two_and_says_what_it_means():
    assert {*OF_MODELS, *OF_SITE, "store"} & set(NIGHTLY_NAMES) == set()
    assert {*OF_MODELS, *OF_SITE, "store", *NIGHTLY_NAMES} == set(NAMES) == set(WORDS)
    assert [name for name, _ in rules_with_names(Rules())] == list(NAMES)


def test_every_rule_links_to_a_panel_that_there_is():
    panels = {name for tab in TABS.values() for name in tab.panels}
    assert {words.panel for words in WORDS.values()} - {None} <= panels
