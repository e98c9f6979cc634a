"""Who may do what to a model's runs, and why not, in words. Pure.

A viewer reads. A developer registers runs, has them compared, and deploys and rolls back what was approved. An approver
approves, rejects and retires, may deploy and roll back, and vouches for journals from before they were signed. Nobody
approves what they trained or registered themselves, whatever their roles: two people stand behind a champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from deployr_core.registry.journal import LONGEST_WHY, Action, CheckedItem
from deployr_core.registry.run import DeployType
from deployr_core.registry.standing import GOES_LIVE, MAY_BECOME, RunStanding, Stage, Standing, is_own

APP = "app"
"""The role under which the app itself acts, by a schedule or an alarm: it may open runs, and nothing else."""


class Role(StrEnum):
    """What somebody may do; one person may have several."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    APPROVER = "approver"


MAY: Mapping[Action, tuple[Role, ...]] = {
    Action.OPENED: (Role.DEVELOPER,),
    Action.REGISTERED: (Role.DEVELOPER,),
    Action.COMPARED: (Role.DEVELOPER,),
    Action.APPROVED: (Role.APPROVER,),
    Action.REJECTED: (Role.APPROVER,),
    Action.DEPLOYED: (Role.DEVELOPER, Role.APPROVER),
    Action.EXPORTED: (Role.DEVELOPER, Role.APPROVER),
    Action.ROLLED_BACK: (Role.DEVELOPER, Role.APPROVER),
    Action.RETIRED: (Role.APPROVER,),
    Action.VOUCHED: (Role.APPROVER,),
}
"""By action: the roles that allow it. Reading is for everybody who has a role."""

_WHY_IS_NEEDED = frozenset({Action.APPROVED, Action.REJECTED, Action.ROLLED_BACK, Action.RETIRED, Action.VOUCHED})
IN_WORDS: Mapping[Action, str] = {
    Action.OPENED: "open a run",
    Action.REGISTERED: "register a run",
    Action.COMPARED: "record a comparison",
    Action.APPROVED: "approve a run",
    Action.REJECTED: "reject a run",
    Action.DEPLOYED: "deploy a run",
    Action.EXPORTED: "export a run",
    Action.ROLLED_BACK: "roll back",
    Action.RETIRED: "retire a run",
    Action.VOUCHED: "vouch for a journal",
}


class Reason(StrEnum):
    """Why something is refused; each code is in the glossary."""

    NOT_YOUR_ROLE = "not-your-role"
    OWN_RUN = "own-run"
    NO_WHY = "no-why"
    FAILED_ITEMS = "failed-items"
    UNKNOWN_RUN = "unknown-run"
    ALREADY_THERE = "already-there"
    WRONG_STAGE = "wrong-stage"
    WRONG_DEPLOY_TYPE = "wrong-deploy-type"
    NOTHING_TO_GO_BACK_TO = "nothing-to-go-back-to"
    NOT_SIGNED = "not-signed"
    NOT_AS_REGISTERED = "not-as-registered"
    NOT_USABLE = "not-usable"


class RegistryRefused(ValueError):
    """What somebody tried is not done. ``reason`` is its code; the message is a sentence that says what would help."""

    def __init__(self, reason: Reason, said: str) -> None:
        super().__init__(said)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody whom the registry knows. ``aliases``: what else they go by, such as the login of the machine.

    ``only``: by role, the models for which they have it; a role that is not in it they have for every model.
    """

    name: str
    roles: frozenset[Role]
    aliases: frozenset[str] = frozenset()
    only: Mapping[Role, frozenset[str]] = field(default_factory=dict, hash=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Give all that this person goes by."""
        return (self.name, *sorted(self.aliases))

    def roles_for(self, model_id: str) -> frozenset[Role]:
        """Give the roles that they have for a model."""
        return frozenset(role for role in self.roles if role not in self.only or model_id in self.only[role])


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What somebody wants done.

    ``run_id``: of ``rolled-back`` it is not looked at: it is the champion's. ``despite``: approves although items of
    the checklist failed.
    """

    action: Action
    run_id: str = ""
    why: str = ""
    checklist: tuple[CheckedItem, ...] = field(default=(), repr=False)
    despite: bool = False


def role_for(person: Person, action: Action, model_id: str) -> Role | None:
    """Give the role by which a person may do this to a model; None if none of theirs allows it."""
    roles = person.roles_for(model_id)
    return next((role for role in MAY[action] if role in roles), None)


def expect_may(wish: Wish, person: Person, standing: Standing) -> None:
    """Return if it may be done.

    Raises:
        RegistryRefused: it may not; the first thing that speaks against it.
    """
    if role_for(person, wish.action, standing.model_id) is None:
        needed = " or ".join(MAY[wish.action])
        has = " and ".join(sorted(person.roles_for(standing.model_id))) or "without a role"
        here = f" for {standing.model_id}" if person.only else ""
        raise RegistryRefused(
            Reason.NOT_YOUR_ROLE, f"to {IN_WORDS[wish.action]} takes the role {needed}; {person.name} is {has}{here}"
        )
    if wish.action in _WHY_IS_NEEDED and not wish.why.strip():
        raise RegistryRefused(Reason.NO_WHY, f"to {IN_WORDS[wish.action]} takes a reason in words; it stays on record")
    if len(wish.why) > LONGEST_WHY:
        raise RegistryRefused(Reason.NO_WHY, f"expected a reason of at most {LONGEST_WHY} characters")
    match wish.action:
        case Action.OPENED | Action.VOUCHED:
            return
        case Action.REGISTERED:
            _expect_new(wish, standing)
        case Action.ROLLED_BACK:
            _expect_way_back(standing)
        case _:
            _expect_stage(wish, person, standing)


def _expect_new(wish: Wish, standing: Standing) -> None:
    if wish.run_id in standing.runs:
        stage = standing.runs[wish.run_id].stage
        raise RegistryRefused(Reason.ALREADY_THERE, f"{wish.run_id} was registered before, and is {stage} now")


def _expect_way_back(standing: Standing) -> None:
    if standing.champion is None:
        raise RegistryRefused(Reason.NOTHING_TO_GO_BACK_TO, f"{standing.model_id} has no champion to roll back")
    if standing.may_go_back() is None:
        raise RegistryRefused(
            Reason.NOTHING_TO_GO_BACK_TO,
            f"{standing.champion} replaced no run that could come back; to stop the model: "
            f"deployr switch off --model {standing.model_id}",
        )


def _expect_stage(wish: Wish, person: Person, standing: Standing) -> None:
    run = standing.runs.get(wish.run_id)
    if run is None:
        known = ", ".join(standing.runs) or "none yet"
        raise RegistryRefused(Reason.UNKNOWN_RUN, f"expected a registered run of {standing.model_id}: {known}")
    if wish.action in GOES_LIVE.values() and run.stage is Stage.CHAMPION:
        raise RegistryRefused(Reason.ALREADY_THERE, f"{run.run_id} is the champion already")
    if run.stage not in MAY_BECOME[wish.action]:
        expected = " or ".join(sorted(MAY_BECOME[wish.action]))
        said = f"expected a run that is {expected}, to {IN_WORDS[wish.action]}; {run.run_id} is {run.stage}"
        raise RegistryRefused(Reason.WRONG_STAGE, said)
    match wish.action:
        case Action.APPROVED:
            _expect_other_eyes(run, person)
            _expect_checked(wish)
        case Action.DEPLOYED | Action.EXPORTED if GOES_LIVE[run.deploy_type] is not wish.action:
            helps = "leave out --to" if run.deploy_type is DeployType.CLOUD else "--to FOLDER exports it"
            said = f"{run.run_id} is for the {run.deploy_type}, by its config: {helps}"
            raise RegistryRefused(Reason.WRONG_DEPLOY_TYPE, said)


def _expect_other_eyes(run: RunStanding, person: Person) -> None:
    if is_own(run, person.names):
        raise RegistryRefused(
            Reason.OWN_RUN,
            f"{run.run_id} was trained by {run.trained_by} and registered by {run.registered_by}: "
            "somebody else has to approve it",
        )


def _expect_checked(wish: Wish) -> None:
    failed = [item.item for item in wish.checklist if not item.passed]
    if failed and not wish.despite:
        raise RegistryRefused(
            Reason.FAILED_ITEMS,
            f"the checklist is not met in {', '.join(failed)}; to approve all the same, say so (--despite-failed); "
            "it stays on record",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """What may be done next: which action to which run, in which roles, and who may not whatever their role."""

    action: Action
    run_id: str
    roles: tuple[Role, ...]
    not_by: tuple[str, ...] = ()


def next_steps(standing: Standing) -> tuple[NextStep, ...]:
    """Give what may be done next with the runs of a model, in order of registration."""
    steps = []
    for run in standing.runs.values():
        for action in (Action.APPROVED, GOES_LIVE[run.deploy_type], Action.REJECTED, Action.RETIRED):
            if run.stage in MAY_BECOME[action]:
                not_by = tuple(sorted({run.trained_by, run.registered_by})) if action is Action.APPROVED else ()
                steps.append(NextStep(action=action, run_id=run.run_id, roles=MAY[action], not_by=not_by))
    if standing.champion is not None and standing.may_go_back() is not None:
        back = NextStep(action=Action.ROLLED_BACK, run_id=standing.champion, roles=MAY[Action.ROLLED_BACK])
        steps.append(back)
    return tuple(steps)
