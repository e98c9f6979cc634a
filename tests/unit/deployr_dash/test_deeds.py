"""Deeds from the dashboard: what is offered, what is sent, and how the answer reads, as the app reads and writes."""

from __future__ import annotations

import shlex

import pytest

from deployr_core.registry.journal import Action, CheckedItem
from deployr_core.registry.roles import Reason, RegistryRefused
from deployr_core.registry.standing import standing_of
from deployr_dash.deeds import (
    BY_COMMAND,
    DEEDS,
    LOOK_FIRST,
    Ended,
    Wanted,
    body_of,
    command,
    missing,
    offered,
    outcome_of,
    route_of,
    who_may,
)
from deployr_serve.triggers import registry_json
from tests.registry_parts import deed, journal_of

FAILED = CheckedItem(item="parity", passed=False, said="nobody compared")
GOES_LIVE = (
    deed(Action.REGISTERED, "a"),
    deed(Action.APPROVED, "a", who="grace", role="approver", why="good"),
    deed(Action.DEPLOYED, "a"),
    deed(Action.REGISTERED, "b"),
    deed(Action.APPROVED, "b", who="grace", role="approver", why="better"),
    deed(Action.DEPLOYED, "b", replaces="a"),
)


def wanted(verb: str, **said) -> Wanted:
    return Wanted(deed=DEEDS[verb], model_id="hematocrit", run_id="b", **said)


def test_what_is_offered_follows_from_the_journal_and_says_who_may() -> None:
    standing = standing_of(journal_of(*GOES_LIVE, deed(Action.REGISTERED, "c")), model_id="hematocrit")
    verbs = {run: [each.deed.verb for each in offered(standing, run)] for run in "abc"}
    assert verbs == {"a": ["deploy", "retire"], "b": ["retire", "rollback"], "c": ["approve", "reject", "retire"]}
    edge = {"deploy_type": "edge"}
    entries = (
        deed(Action.REGISTERED, "a", **edge),
        deed(Action.APPROVED, "a", who="grace", role="approver", why="good", **edge),
    )
    for_the_edge = standing_of(journal_of(*entries), model_id="hematocrit")
    assert [each.deed.verb for each in offered(for_the_edge, "a")] == ["export", "reject", "retire"]
    [approve, *_] = offered(standing, "c")
    assert who_may(approve.step) == "approver, but not ada or dev"


@pytest.mark.parametrize("verb", [each.verb for each in DEEDS.values() if each.action not in BY_COMMAND])
def test_the_app_reads_a_deed_as_it_was_meant(verb: str) -> None:
    asked = wanted(verb, why=" it is “better” ", despite=True, checklist=(FAILED,), unmet=1)
    *_, last = route_of(asked).split("/")
    action = registry_json.ACTS.get(last, Action.ROLLED_BACK)
    wish = registry_json.parse_act(body_of(asked), content_type="application/json", action=action, run_id="b")
    assert (wish.action, wish.why) == (DEEDS[verb].action, "it is “better”")
    is_approval = verb == "approve"
    assert (wish.despite, wish.checklist) == (is_approval, (FAILED,) if is_approval else ())


def test_a_route_is_of_one_run_and_a_rollback_of_the_model() -> None:
    assert route_of(wanted("approve")) == "api/registry/models/hematocrit/runs/b/approve"
    assert route_of(wanted("rollback")) == "api/registry/models/hematocrit/rollback"
    odd = Wanted(deed=DEEDS["retire"], model_id="a/b", run_id="../x?y")
    assert route_of(odd) == "api/registry/models/a%2Fb/runs/..%2Fx%3Fy/retire"


def test_a_deed_lacks_a_reason_or_the_word_that_failed_items_are_accepted() -> None:
    assert "takes a reason" in missing(wanted("reject", why="  "))
    assert missing(wanted("deploy")) == ""
    assert "2,000 characters" in missing(wanted("deploy", why="x" * 2001))
    assert "checklist is not met" in missing(wanted("approve", why="good", unmet=2))
    assert missing(wanted("approve", why="good", unmet=2, despite=True)) == ""


def test_the_command_does_the_same_and_is_quoted_for_a_shell() -> None:
    asked = wanted("approve", why="it's better;\nrm -rf /", despite=True)
    site = {"program": "deployr --at north", "options": "--settings local.settings.json"}
    assert shlex.split(command(asked, **site, extract="--extract monitor")) == [
        *("deployr", "--at", "north", "models", "approve", "hematocrit", "b", "--why", "it's better; rm -rf /"),
        *("--despite-failed", "--extract", "monitor", "--settings", "local.settings.json"),
    ]
    here = {"program": "deployr", "options": "", "extract": "--extract monitor"}
    assert command(wanted("rollback"), **here) == "deployr models rollback hematocrit --why ..."
    assert command(wanted("export"), **here) == "deployr models deploy hematocrit b --to FOLDER"


def test_what_was_done_is_told_with_who_did_it_as_the_app_knows_them() -> None:
    entry = journal_of(*GOES_LIVE)[-1]
    answer = registry_json.answer(registry_json.done_told(entry, "start it again"))
    told = outcome_of(answer.status, answer.body)
    assert told.ended is Ended.DONE
    assert told.said == ("Done, by dev as developer: entry 6 of the journal.", "To be seen to: start it again.")


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_is_told_with_the_apps_own_sentence(reason: Reason) -> None:
    answer = registry_json.refusal(RegistryRefused(reason, "expected something else"))
    told = outcome_of(answer.status, answer.body)
    assert told.ended is Ended.REFUSED
    assert "The app says: expected something else." in told.said
    assert "on record" in told.said[-1]


def test_a_refusal_by_role_and_of_an_own_run_stand_in_plain_words_first() -> None:
    for reason, plain in ((Reason.NOT_YOUR_ROLE, "Your role does not"), (Reason.OWN_RUN, "second pair of eyes")):
        answer = registry_json.refusal(RegistryRefused(reason, "no"))
        assert plain in outcome_of(answer.status, answer.body).said[0]


@pytest.mark.parametrize(
    ("status", "body", "ended", "words"),
    [
        (401, b"", Ended.REFUSED, "Sign out and in again"),
        (404, b"", Ended.REFUSED, "DEPLOYR_REGISTRY_PEOPLE"),
        (200, b"<html>", Ended.REFUSED, "not this app’s registry"),
        (302, b"{}", Ended.REFUSED, "not this app’s registry"),
        (200, b"[]", Ended.REFUSED, "not this app’s registry"),
        (500, registry_json.failure(None).body, Ended.UNKNOWN, LOOK_FIRST),
        (502, b"<html>", Ended.UNKNOWN, LOOK_FIRST),
        (504, b"", Ended.UNKNOWN, "What answered (status 504) is not this app’s registry."),
    ],
)
def test_what_is_no_answer_of_the_registry_says_where_to_look(
    status: int, body: bytes, ended: Ended, words: str
) -> None:
    told = outcome_of(status, body)
    assert told.ended is ended
    assert words in " ".join(told.said)
