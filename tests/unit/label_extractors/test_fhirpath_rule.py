"""Labels by an expression: checked where they are written, evaluated between two instants."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import msgspec
import pytest

from deployr_core.label_rules import FhirPathAnswer, FhirPathRule, FhirPathSearch, outputs_of
from deployr_core.labels import RuleFailed
from deployr_core.outputs import Target
from deployr_core.packet import Censored, NotYet, Observed, Subject
from deployr_serve.core.outcome_source import OutcomeFacts
from label_extractors.collect import collect_labels
from label_extractors.rules import Asked, label_of

DAY = timedelta(days=1)
LABS = FhirPathSearch(resource_type="Observation", parameters={"category": "laboratory"})
TIMED = "Bundle.entry.resource.where(issued >= %as_of and issued < %until)"


def rule_of(expression, **changes):
    return FhirPathRule(**{"expression": expression, "searches": (LABS,), "hours": 24, **changes})


def observation(issued, value=30.0):
    return json.dumps(
        {
            "resourceType": "Observation",
            "id": "lab1",
            "issued": issued,
            "valueQuantity": {"value": value, "unit": "%"},
        }
    ).encode()


@pytest.fixture
def label(now):
    """Give a function that asks at 20:55 UTC of 6 January, and has the answer a day later unless told otherwise."""

    def ask(rule, *bodies, after=DAY):
        asked = Asked(rule=rule, subject=Subject(patient_id="p1"), as_of=now)
        return label_of(asked, OutcomeFacts(resources={LABS.key: bodies}), now=now + after)

    return ask


@pytest.mark.parametrize(
    ("issued", "value"),
    [
        ("2015-01-06T20:55:00.000000Z", 1.0),
        ("2015-01-06T20:54:59.999999Z", 0.0),
        ("2015-01-06T15:55:00-05:00", 1.0),
        ("2015-01-06T15:54:59.999-05:00", 0.0),
        ("2015-01-07T20:54:59.999999Z", 1.0),
        ("2015-01-07T20:55:00Z", 0.0),
        ("2015-01-08T02:40:00+05:45", 0.0),
    ],
)
def test_instants_are_compared_as_such_whatever_their_offset(label, issued, value):
    assert label(rule_of(f"{TIMED}.exists()"), observation(issued)).value == value


def test_it_is_asked_once_the_hours_have_passed_and_not_before(label, now):
    rule = rule_of(f"{TIMED}.exists()")
    body = observation("2015-01-06T21:00:00Z")
    assert label(rule, body, after=DAY - timedelta(microseconds=1)) == NotYet(ripe_at=now + DAY)
    assert label(rule, body, after=9 * DAY) == Observed(value=1.0, at=now + DAY, known_at=now + DAY, source_id="")


def test_a_number_is_taken_as_it_is_and_what_is_none_gives_no_label(label):
    highest = f"{TIMED}.value.value.aggregate(iif($total.empty() or $this > $total, $this, $total))"
    rule = rule_of(highest, answer=FhirPathAnswer.NUMBER, unit="%")
    early, late = observation("2015-01-06T21:00:00Z", 30.5), observation("2015-01-06T22:00:00Z", 41.25)
    assert label(rule, early, late).value == 41.25
    assert label(rule) == Censored(reason="no-usable-answer")
    several = rule_of(f"{TIMED}.value.value", answer=FhirPathAnswer.NUMBER, unit="%")
    assert label(several, early, late) == Censored(reason="no-usable-answer")
    truth = rule_of(f"{TIMED}.exists()", answer=FhirPathAnswer.NUMBER, unit="%")
    assert label(truth, early) == Censored(reason="no-usable-answer")
    assert label(rule_of(f"{TIMED}.value.value"), early) == Censored(reason="no-usable-answer")


def test_what_cannot_be_evaluated_over_this_record_fails_without_a_word_about_it(label):
    rule = rule_of(f"{TIMED}.value.value.single() > 3")
    early, late = observation("2015-01-06T21:00:00Z", 30.5), observation("2015-01-06T22:00:00Z", 41.25)
    with pytest.raises(RuleFailed) as raised:
        label(rule, early, late)
    assert "30.5" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("", "1 to 4000"),
        ("Bundle.entry.count()) > 1", "to its last character"),
        ("Bundle.entry.where(status='final'", "to its last character"),
        ("'open", "to its last character"),
        ("Bundle.entry.nope(%as_of, %until)", r"no nope\(\)"),
        ("Bundle.entry.resource.value.value.max() > 3", r"no max\(\): use aggregate\(\)"),
        ("now() > %as_of", r"without now\(\)"),
        ("Bundle.entry.trace('x').exists()", r"without trace\(\)"),
        ("%as_off < %until", "no %as_off"),
        ("Bundle.entry.exists()", "by %as_of and %until"),
        ("Bundle.entry.where(resource.issued > %as_of).exists()", "by %as_of and %until"),
        ("%as_of < %until and Bundle.entry.take('x').exists()", "can be evaluated"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_where_it_is_read(expression, named):
    with pytest.raises(ValueError, match=named):
        rule_of(expression)


@pytest.mark.parametrize(
    "changes",
    [
        {"searches": ()},
        {"searches": (LABS, LABS)},
        {"answer": FhirPathAnswer.NUMBER},
        {"unit": "%"},
        {"hours": 0},
    ],
    ids=str,
)
def test_a_rule_that_does_not_fit_together_is_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        rule_of(f"{TIMED}.exists()", **changes)


@pytest.mark.parametrize(
    ("resource_type", "parameters"),
    [("observation", {}), ("Patient", {}), ("Observation", {"patient": "p2"}), ("Observation", {"_count": "1"})],
)
def test_a_search_is_of_the_patients_resources_and_of_nobody_elses(resource_type, parameters):
    with pytest.raises(ValueError, match="expected"):
        FhirPathSearch(resource_type=resource_type, parameters=parameters)


def test_the_outputs_follow_from_the_answer():
    assert outputs_of(rule_of(f"{TIMED}.exists()")).target is Target.BINARY
    number = outputs_of(rule_of(f"{TIMED}.count()", answer=FhirPathAnswer.NUMBER, unit="{results}"))
    assert (number.target, number.unit) == (Target.REGRESSION, "{results}")


def test_a_rule_survives_json():
    rule = rule_of(f"{TIMED}.exists()")
    assert msgspec.json.decode(msgspec.json.encode(rule), type=FhirPathRule) == rule


def test_nobody_loads_the_engine_who_has_no_such_rule():
    script = "import sys, deployr_core.bundle, label_extractors.collect; sys.exit('fhirpathpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_one_packets_expression_that_fails_hides_no_other_label(
    services_of, models_of, packet_of, outcomes_of, abnormal, bundle, with_rule, clock
):
    failing = with_rule(rule_of(f"{TIMED}.value.value.single() > 3"))
    services = services_of(models=models_of(hematocrit=bundle, rising=failing))
    await services.store.create(packet_of("p01"))
    await services.store.create(packet_of("p02", model_id="rising"))
    clock.pass_time(2 * 24 * 3600)
    bodies = (observation("2015-01-06T21:00:00Z"), observation("2015-01-06T22:00:00Z"))
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), resources={LABS.key: bodies}))
    assert await collect_labels(services, outcomes) == {"observed": 1, "failed:rule": 1}
    assert outcomes.asked[0][1].searches == (LABS,)
