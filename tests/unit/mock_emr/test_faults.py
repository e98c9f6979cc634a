from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mock_emr.faults import NO_FAULT, FaultError, Faults, Rule, rules_in, rules_in_yaml

NOON = datetime(2015, 1, 6, 12, tzinfo=UTC)
FILE = """\
- name: night-outage
  route: "*"
  status: 503
  from: 2015-01-06T12:00:00Z
  until: 2015-01-06T13:00:00Z
- {route: Observation, patient: p1, body: restricted, times: 2}
"""


def test_rules_are_read_from_yaml_as_they_are_written() -> None:
    outage, restricted = rules_in_yaml(FILE)
    assert outage == Rule(
        name="night-outage", route="*", status=503, from_="2015-01-06T12:00:00Z", until="2015-01-06T13:00:00Z"
    )
    assert restricted == Rule(route="Observation", patient="p1", body="restricted", times=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "list"),
        ("route: Observation", "list"),
        ("- [", "YAML"),
        ("- {route: Observation, status: 503, status: 504}", "once"),
        ("- {route: Observation, colour: red}", "colour"),
        ("- {route: Observation, status: many}", "status"),
        ("- {route: Observation}", r"\[0\]: expected at least one of status, body"),
        ("- {route: observation, status: 503}", "route: expected a FHIR resource type"),
        ("- {route: score, body: foreign-next}", "foreign-next: expected the route of a FHIR resource type"),
        ("- {route: token, body: expired-token}", "a route that takes a token"),
        ("- {route: score, status: 503, from: noon}", "from, until"),
        ("- {route: score, status: 503, from: 2015-01-06T12:00:00}", "offset"),
        ("- {route: score, status: 503, from: 2015-01-07T00:00:00Z, until: 2015-01-06T00:00:00Z}", "after from"),
        ("- {route: score, status: 503, name: a b}", "name"),
        ("- {name: a, route: score, status: 503}\n- {name: a, route: token, status: 503}", "no other rule"),
        ("- {route: score, delay_ms: -1}", "delay_ms"),
        ("- !!python/object/apply:os.getcwd []", "expected"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_and_says_where(text: str, says: str) -> None:
    with pytest.raises(FaultError, match=says):
        rules_in_yaml(text)


def test_one_rule_is_read_as_a_list_of_one() -> None:
    assert rules_in(b'{"route":"score","status":503}') == (Rule(route="score", status=503),)


def test_a_rule_is_played_from_its_first_instant_on_and_no_longer_at_its_last() -> None:
    rule = Rule(route="*", status=503, from_="2015-01-06T12:00:00Z", until="2015-01-06T13:00:00Z")
    hours = [(11, 59), (12, 0), (12, 59), (13, 0)]
    played = [rule.fits("score", now=NOON.replace(hour=hour, minute=minute), patients=()) for hour, minute in hours]
    assert played == [False, True, True, False]


def test_a_rule_about_a_patient_is_played_for_calls_about_them_alone() -> None:
    faults = Faults()
    assert not faults.ask_for_patients()
    faults.put([Rule(route="*", patient="p1", status=500)])
    assert faults.ask_for_patients()
    assert faults.take("Observation", now=NOON, patients=["p2"]) is NO_FAULT
    assert faults.take("Observation", now=NOON) is NO_FAULT
    assert faults.take("score", now=NOON, patients=["p2", "p1"]).status == 500


def test_what_needs_a_token_or_a_patient_passes_by_the_open_routes() -> None:
    rule = Rule(route="*", body="expired-token")
    assert not rule.fits("token", now=NOON, patients=())
    assert rule.fits("Observation", now=NOON, patients=())


def test_rules_are_added_behind_the_others_and_removed_by_name() -> None:
    faults = Faults()
    first, second = faults.add([Rule(route="score", status=500), Rule(route="score", status=503, name="busy")])
    assert (first.name, second.name) == ("fault-1", "busy")
    with pytest.raises(FaultError, match="no other rule"):
        faults.add([Rule(route="token", status=500), Rule(route="token", status=500, name="busy")])
    assert faults.rules() == (first, second)
    assert faults.remove("fault-1")
    assert not faults.remove("fault-1")
    assert faults.take("score", now=NOON) == second
