"""The fold: how a model stands after each entry, and what cannot have happened."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployr_core.registry.journal import Action, JournalBroken
from deployr_core.registry.roles import RegistryRefused, Role, Wish, expect_may, next_steps
from deployr_core.registry.standing import MAY_BECOME, Stage, standing_of
from tests.registry_parts import ADA, DEV, GRACE, deed, journal_of


def stands(*deeds):
    return standing_of(journal_of(*deeds), model_id="hematocrit")


def live(run_id, *, replaces=None):
    """Give the deeds by which a run becomes the champion."""
    return (
        deed(Action.REGISTERED, run_id),
        deed(Action.APPROVED, run_id, who="grace", role="approver", why="good"),
        deed(Action.DEPLOYED, run_id, replaces=replaces),
    )


def stages(standing):
    return {run_id: run.stage for run_id, run in standing.runs.items()}


BACK = deed(Action.ROLLED_BACK, "b", replaces="a", why="worse")


def test_before_the_first_entry_there_is_nothing():
    standing = stands()
    assert (standing.champion, standing.head, dict(standing.runs), standing.shown) == (None, None, {}, frozenset())


def test_a_registered_run_is_a_challenger_and_nobody_is_shown_it():
    standing = stands(deed(Action.REGISTERED, "a"))
    assert (stages(standing), standing.champion, standing.shown) == ({"a": Stage.CHALLENGER}, None, frozenset())


def test_an_approved_run_is_not_shown_before_it_is_deployed():
    standing = stands(*live("a")[:2])
    assert (stages(standing), standing.shown) == ({"a": Stage.APPROVED}, frozenset())


def test_a_deployed_run_is_the_champion_and_the_one_before_it_may_still_be_shown():
    standing = stands(*live("a"), *live("b", replaces="a"))
    assert stages(standing) == {"a": Stage.FORMER, "b": Stage.CHAMPION}
    assert (standing.champion, standing.shown) == ("b", {"b-a", "b-b"})
    assert standing.may_go_back().run_id == "a"


def test_after_a_rollback_the_earlier_one_is_back_and_the_other_is_shown_to_nobody():
    standing = stands(*live("a"), *live("b", replaces="a"), BACK)
    assert stages(standing) == {"a": Stage.CHAMPION, "b": Stage.ROLLED_BACK}
    assert (standing.champion, standing.shown) == ("a", {"b-a"})
    assert standing.may_go_back() is None


def test_two_rollbacks_go_back_two_steps():
    standing = stands(
        *live("a"),
        *live("b", replaces="a"),
        *live("c", replaces="b"),
        deed(Action.ROLLED_BACK, "c", replaces="b"),
        BACK,
    )
    assert (standing.champion, standing.shown) == ("a", {"b-a"})


def test_a_former_champion_that_was_retired_cannot_come_back():
    standing = stands(*live("a"), *live("b", replaces="a"), deed(Action.RETIRED, "a", role="approver"))
    assert (standing.may_go_back(), standing.shown) == (None, {"b-b"})


def test_a_retired_champion_leaves_none_and_nothing_is_shown():
    standing = stands(*live("a"), deed(Action.RETIRED, "a"))
    assert (standing.champion, standing.shown) == (None, frozenset())


def test_an_exported_run_is_the_champion_and_not_shown_here():
    on_edge = {"deploy_type": "edge"}
    standing = stands(
        deed(Action.REGISTERED, "a", **on_edge),
        deed(Action.APPROVED, "a", who="grace", **on_edge),
        deed(Action.EXPORTED, "a", **on_edge),
    )
    assert (standing.champion, standing.shown) == ("a", frozenset())


def test_a_refusal_changes_nothing_but_the_head():
    refused = deed(Action.REFUSED, "a", who="vic", tried="deployed", reason="not-your-role")
    before, after = stands(*live("a")), stands(*live("a"), refused)
    assert (after.runs, after.champion) == (before.runs, before.champion)
    assert after.head.number == before.head.number + 1


def test_runs_that_were_asked_for_are_counted_until_one_is_registered():
    asked = deed(Action.OPENED, who="timer", role="app", why="drift")
    assert stands(asked, asked).opened == 2
    assert stands(asked, asked, deed(Action.REGISTERED, "a")).opened == 0


@pytest.mark.parametrize(
    ("deeds", "said"),
    [
        ((deed(Action.REGISTERED, "a"), deed(Action.REGISTERED, "a")), "not registered before"),
        ((deed(Action.REGISTERED, "a", deploy_type="moon"),), "cloud or edge"),
        ((deed(Action.APPROVED, "a", who="grace"),), "that was registered"),
        ((deed(Action.REGISTERED, "a"), deed(Action.DEPLOYED, "a")), "is challenger cannot have been deployed"),
        ((deed(Action.REGISTERED, "a"), deed(Action.APPROVED, "a", who="ada")), "a run of their own"),
        ((deed(Action.REGISTERED, "a"), deed(Action.APPROVED, "a", who=" Dev")), "a run of their own"),
        (
            (deed(Action.REGISTERED, "a"), deed(Action.APPROVED, "a", who="grace", bundle_sha256="x")),
            "by their digests",
        ),
        ((*live("a"), *live("b")), "the champion that it replaced"),
        ((*live("a"), deed(Action.ROLLED_BACK, "a", replaces=None)), "the run that the champion had replaced"),
        ((*live("a"), *live("b", replaces="a"), deed(Action.ROLLED_BACK, "a", replaces="b")), "is former"),
        ((*live("a"), *live("b", replaces="a"), BACK, deed(Action.DEPLOYED, "b", replaces="a")), "is rolled-back"),
        ((*live("a")[:2], deed(Action.EXPORTED, "a")), "for the cloud cannot have been exported"),
    ],
)
def test_what_cannot_have_happened_is_named_however_well_its_digests_fit(deeds, said):
    with pytest.raises(JournalBroken, match=said) as raised:
        stands(*deeds)
    assert str(raised.value).startswith(f"entry {len(deeds)}:")


ACTIONS = [a for a in Action if a not in {Action.REFUSED, Action.OPENED, Action.COMPARED, Action.EXPORTED}]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from("abc")), max_size=25))
def test_whatever_is_tried_there_is_at_most_one_champion_and_it_was_approved_by_somebody_else(tried):
    """What the roles let through, the fold takes; and what it takes keeps these promises."""
    deeds, approved = [], {}
    for action, run_id in tried:
        standing = stands(*deeds)
        by = GRACE if action in {Action.APPROVED, Action.REJECTED, Action.RETIRED} else DEV
        try:
            expect_may(Wish(action=action, run_id=run_id, why="because"), by, standing)
        except RegistryRefused:
            continue
        about, replaces = run_id, None
        if action is Action.DEPLOYED:
            replaces = standing.champion
        if action is Action.ROLLED_BACK:
            about, replaces = standing.champion, standing.may_go_back().run_id
        if action is Action.APPROVED:
            approved[run_id] = by.name
        deeds.append(deed(action, about, who=by.name, replaces=replaces))
    standing = stands(*deeds)
    champions = standing.at(Stage.CHAMPION)
    assert [run.run_id for run in champions] == ([standing.champion] if standing.champion else [])
    for run in (*champions, *standing.at(Stage.FORMER)):
        assert approved[run.run_id] not in {run.trained_by, run.registered_by}
    assert standing.shown == {run.bundle_sha256 for run in (*champions, *standing.at(Stage.FORMER))}


def test_what_may_be_done_next_is_what_is_let_through():
    standing = stands(*live("a"), *live("b", replaces="a"), deed(Action.REGISTERED, "c"))
    steps = next_steps(standing)
    assert [(step.action, step.run_id) for step in steps] == [
        (Action.DEPLOYED, "a"),
        (Action.RETIRED, "a"),
        (Action.RETIRED, "b"),
        (Action.APPROVED, "c"),
        (Action.REJECTED, "c"),
        (Action.RETIRED, "c"),
        (Action.ROLLED_BACK, "b"),
    ]
    for step in steps:
        person = GRACE if Role.APPROVER in step.roles else DEV
        expect_may(Wish(action=step.action, run_id=step.run_id, why="because"), person, standing)
    [approval] = [step for step in steps if step.action is Action.APPROVED]
    assert approval.not_by == ("ada", "dev")
    assert ADA.name in approval.not_by


def test_every_stage_can_be_left_or_is_an_end():
    left = {stage for stages in MAY_BECOME.values() for stage in stages}
    assert left == set(Stage)
