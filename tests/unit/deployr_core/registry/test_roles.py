"""Who may do what: a refusal for each rule, and that it says what would help."""

from __future__ import annotations

import pytest

from deployr_core.registry.journal import Action, CheckedItem
from deployr_core.registry.roles import MAY, Person, Reason, RegistryRefused, Role, Wish, expect_may, role_for
from deployr_core.registry.standing import standing_of
from tests.registry_parts import ADA, DEV, GRACE, VIC, deed, journal_of

A = deed(Action.REGISTERED, "a")
APPROVED = deed(Action.APPROVED, "a", who="grace")
LIVE = (A, APPROVED, deed(Action.DEPLOYED, "a"))
FAILED = CheckedItem(item="coverage", passed=False, said="61 % of rows")
PASSED = CheckedItem(item="parity", passed=True, said="equal to the bit")


def standing(*deeds):
    return standing_of(journal_of(*deeds), model_id="hematocrit")


def why_not(wish, person, *deeds):
    with pytest.raises(RegistryRefused) as raised:
        expect_may(wish, person, standing(*deeds))
    return raised.value.reason, str(raised.value)


@pytest.mark.parametrize("action", MAY)
def test_a_viewer_may_do_nothing(action):
    reason, said = why_not(Wish(action=action, run_id="a", why="because"), VIC, *LIVE)
    assert (reason, said.endswith("; vic is viewer")) == (Reason.NOT_YOUR_ROLE, True)


def test_who_has_no_role_is_told_so():
    nobody = Person(name="root", roles=frozenset())
    reason, said = why_not(Wish(action=Action.DEPLOYED, run_id="a"), nobody, *LIVE)
    assert (reason, said) == (
        Reason.NOT_YOUR_ROLE,
        "to deploy a run takes the role developer or approver; root is without a role",
    )


@pytest.mark.parametrize("action", [Action.APPROVED, Action.REJECTED, Action.RETIRED])
def test_a_developer_decides_nothing(action):
    assert why_not(Wish(action=action, run_id="a", why="because"), DEV, A)[0] is Reason.NOT_YOUR_ROLE


@pytest.mark.parametrize(
    "person",
    [
        ADA,
        Person(name="adal", roles=frozenset({Role.APPROVER})),
        Person(name="grace", roles=frozenset({Role.APPROVER}), aliases=frozenset({"ADA "})),
        Person(name="dev", roles=frozenset(Role)),
    ],
)
def test_nobody_approves_what_they_trained_or_registered_whatever_they_are_called(person):
    own = deed(Action.REGISTERED, "a", trained_by="ada" if person.name != "adal" else "AdaL")
    reason, said = why_not(Wish(action=Action.APPROVED, run_id="a", why="good"), person, own)
    assert reason is Reason.OWN_RUN
    assert "somebody else has to approve it" in said


def test_somebody_else_may_approve():
    expect_may(Wish(action=Action.APPROVED, run_id="a", why="good"), GRACE, standing(A))


@pytest.mark.parametrize("action", [Action.APPROVED, Action.REJECTED, Action.ROLLED_BACK, Action.RETIRED])
@pytest.mark.parametrize("why", ["", "  \n"])
def test_a_decision_takes_a_reason(action, why):
    assert why_not(Wish(action=action, run_id="a", why=why), GRACE, A)[0] is Reason.NO_WHY


def test_a_reason_has_an_end():
    wish = Wish(action=Action.APPROVED, run_id="a", why="x" * 2001)
    assert why_not(wish, GRACE, A)[0] is Reason.NO_WHY


def test_failed_items_need_an_explicit_word():
    wish = Wish(action=Action.APPROVED, run_id="a", why="good", checklist=(PASSED, FAILED))
    reason, said = why_not(wish, GRACE, A)
    assert (reason, "coverage" in said, "parity" in said) == (Reason.FAILED_ITEMS, True, False)
    told = Wish(action=Action.APPROVED, run_id="a", why="good", checklist=(PASSED, FAILED), despite=True)
    expect_may(told, GRACE, standing(A))


@pytest.mark.parametrize(
    ("wish", "deeds", "reason"),
    [
        (Wish(action=Action.APPROVED, run_id="z", why="good"), (A,), Reason.UNKNOWN_RUN),
        (Wish(action=Action.APPROVED, run_id="a", why="good"), LIVE, Reason.WRONG_STAGE),
        (Wish(action=Action.DEPLOYED, run_id="a"), (A,), Reason.WRONG_STAGE),
        (Wish(action=Action.DEPLOYED, run_id="a"), LIVE, Reason.ALREADY_THERE),
        (Wish(action=Action.EXPORTED, run_id="a"), (A, APPROVED), Reason.WRONG_DEPLOY_TYPE),
        (Wish(action=Action.REJECTED, run_id="a", why="bad"), LIVE, Reason.WRONG_STAGE),
        (Wish(action=Action.ROLLED_BACK, why="bad"), (A,), Reason.NOTHING_TO_GO_BACK_TO),
        (Wish(action=Action.ROLLED_BACK, why="bad"), LIVE, Reason.NOTHING_TO_GO_BACK_TO),
    ],
)
def test_things_are_done_in_their_order(wish, deeds, reason):
    assert why_not(wish, GRACE, *deeds)[0] is reason


def test_a_run_is_registered_once():
    assert why_not(Wish(action=Action.REGISTERED, run_id="a"), DEV, A)[0] is Reason.ALREADY_THERE


def test_the_role_that_is_written_down_is_one_that_allows_it():
    assert role_for(ADA, Action.APPROVED, "hematocrit") is Role.APPROVER
    assert role_for(ADA, Action.REGISTERED, "hematocrit") is Role.DEVELOPER
    assert role_for(GRACE, Action.DEPLOYED, "hematocrit") is Role.APPROVER
    assert role_for(VIC, Action.DEPLOYED, "hematocrit") is None


def test_a_role_for_some_models_is_none_for_the_others():
    both = frozenset({Role.VIEWER, Role.APPROVER})
    eve = Person(name="eve", roles=both, only={Role.APPROVER: frozenset({"anemia"})})
    assert (eve.roles_for("anemia"), eve.roles_for("hematocrit")) == (both, {Role.VIEWER})
    reason, said = why_not(Wish(action=Action.APPROVED, run_id="a", why="good"), eve, A)
    assert reason is Reason.NOT_YOUR_ROLE
    assert said == "to approve a run takes the role approver; eve is viewer for hematocrit"
    expect_may(
        Wish(action=Action.APPROVED, run_id="a", why="good"),
        eve,
        standing_of(journal_of(A, model_id="anemia"), model_id="anemia"),
    )
