"""How a model's runs stand, folded from its journal: champion, challengers, what is approved. Pure.

The fold insists on the order of things: what a journal says to have happened without what must come before it cannot
have happened, however well its digests fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from deployr_core.registry.journal import Action, Entry, Fault, Head, JournalBroken, verify
from deployr_core.registry.run import DeployType
from deployr_core.signing import TrustedKey


class Stage(StrEnum):
    """How a run stands.

    ``former``: was the champion, and another took its place; its bundle may still be shown, and it can come back.
    ``rolled-back``: was withdrawn; it can only come back by another approval.
    """

    CHALLENGER = "challenger"
    APPROVED = "approved"
    REJECTED = "rejected"
    CHAMPION = "champion"
    FORMER = "former"
    ROLLED_BACK = "rolled-back"
    RETIRED = "retired"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStanding:
    """One run as it stands. ``stage_by``, ``stage_at``: who brought it to its stage, and when.

    ``replaced``: the run in whose place it last became the champion. ``compared_with``: runs that it was compared with.
    """

    run_id: str
    run_sha256: str
    bundle_sha256: str
    deploy_type: DeployType
    trained_by: str
    registered_by: str
    registered_at: datetime
    stage: Stage
    stage_by: str
    stage_at: datetime
    approved_by: str = ""
    replaced: str | None = None
    compared_with: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a model stands after an entry of its journal. ``head``: which one; None before the first.

    ``runs``: by id, in order of registration. ``opened``: how many runs were asked for since the last was registered.
    """

    model_id: str
    head: Head | None = None
    runs: Mapping[str, RunStanding] = field(default_factory=dict)
    champion: str | None = None
    opened: int = 0

    def at(self, stage: Stage) -> tuple[RunStanding, ...]:
        """Give the runs at a stage, in order of registration."""
        return tuple(run for run in self.runs.values() if run.stage is stage)

    @property
    def shown(self) -> frozenset[str]:
        """Give the digests of the bundles whose scores people may see.

        Of the champion, and of those before it that were not withdrawn: a worker that has not changed over yet, or a
        request that began with the earlier one, is no reason to show nothing.
        """
        live = (*self.at(Stage.CHAMPION), *self.at(Stage.FORMER))
        return frozenset(run.bundle_sha256 for run in live if run.deploy_type == DeployType.CLOUD)

    def may_go_back(self) -> RunStanding | None:
        """Give the run that a rollback would bring back; None if there is none."""
        champion = self.runs.get(self.champion or "")
        if champion is None or champion.replaced is None:
            return None
        earlier = self.runs[champion.replaced]
        return earlier if earlier.stage is Stage.FORMER else None


MAY_BECOME: Mapping[Action, frozenset[Stage]] = {
    Action.COMPARED: frozenset(Stage),
    Action.APPROVED: frozenset({Stage.CHALLENGER, Stage.ROLLED_BACK}),
    Action.REJECTED: frozenset({Stage.CHALLENGER, Stage.APPROVED, Stage.ROLLED_BACK}),
    Action.DEPLOYED: frozenset({Stage.APPROVED, Stage.FORMER}),
    Action.EXPORTED: frozenset({Stage.APPROVED, Stage.FORMER}),
    Action.ROLLED_BACK: frozenset({Stage.CHAMPION}),
    Action.RETIRED: frozenset(Stage) - {Stage.REJECTED, Stage.RETIRED},
}
"""From which stages each action leads on."""

GOES_LIVE: Mapping[DeployType, Action] = {DeployType.CLOUD: Action.DEPLOYED, DeployType.EDGE: Action.EXPORTED}
"""What makes a run the champion, by where it is to run."""

_LEADS_TO = {
    Action.APPROVED: Stage.APPROVED,
    Action.REJECTED: Stage.REJECTED,
    Action.DEPLOYED: Stage.CHAMPION,
    Action.EXPORTED: Stage.CHAMPION,
    Action.ROLLED_BACK: Stage.ROLLED_BACK,
    Action.RETIRED: Stage.RETIRED,
}


def examined(
    entries: Sequence[Entry], *, model_id: str, heads: Iterable[Head] = (), keys: Sequence[TrustedKey] = ()
) -> Standing | Fault:
    """Give how a model stands by its journal, or what is wrong with that from its first wrong entry on.

    Args:
        entries: in the order in which they are stored.
        model_id: whose journal it is.
        heads: how far it had come, as others were told; see `deployr_core.registry.journal.verify`.
        keys: whose signatures count; see there.
    """
    fault = verify(entries, model_id=model_id, heads=heads, keys=keys)
    if fault is not None:
        return fault
    try:
        return standing_of(entries, model_id=model_id)
    except JournalBroken as error:
        return error.fault


def standing_of(entries: Iterable[Entry], *, model_id: str) -> Standing:
    """Fold a journal whose chain was verified.

    Raises:
        JournalBroken: an entry says what cannot have happened after those before it.
    """
    standing = Standing(model_id=model_id)
    for entry in entries:
        standing = after(standing, entry)
    return standing


def after(standing: Standing, entry: Entry) -> Standing:
    """Give how the model stands after one more entry.

    Raises:
        JournalBroken: it says what cannot have happened.
    """
    come = replace(standing, head=entry.head)
    match entry.action:
        case Action.REFUSED | Action.VOUCHED:
            return come
        case Action.OPENED:
            return replace(come, opened=standing.opened + 1)
        case Action.REGISTERED:
            return replace(come, runs={**standing.runs, entry.run_id: _registered(standing, entry)}, opened=0)
    run = _run_of(standing, entry)
    if entry.action is Action.COMPARED:
        compared = replace(run, compared_with=run.compared_with | {entry.replaces or ""})
        return replace(come, runs={**standing.runs, run.run_id: compared})
    if entry.action is Action.APPROVED and is_own(run, (entry.who,)):
        raise _broken(entry, f"{entry.who} cannot have approved a run of their own")
    moved = replace(run, stage=_LEADS_TO[entry.action], stage_by=entry.who, stage_at=entry.at)
    if entry.action is Action.APPROVED:
        moved = replace(moved, approved_by=entry.who)
    runs = {**standing.runs, run.run_id: moved}
    match entry.action:
        case Action.DEPLOYED | Action.EXPORTED:
            return _with_champion(come, moved, runs, entry)
        case Action.ROLLED_BACK:
            back = standing.may_go_back()
            if back is None or back.run_id != entry.replaces:
                raise _broken(entry, "expected the run that the champion had replaced")
            runs[back.run_id] = replace(back, stage=Stage.CHAMPION, stage_by=entry.who, stage_at=entry.at)
            return replace(come, runs=runs, champion=back.run_id)
    retired = entry.action is Action.RETIRED and run.run_id == standing.champion
    return replace(come, runs=runs, champion=None if retired else standing.champion)


def _registered(standing: Standing, entry: Entry) -> RunStanding:
    if not entry.run_id or entry.run_id in standing.runs:
        raise _broken(entry, "expected a run that was not registered before")
    if entry.deploy_type not in set(DeployType):
        raise _broken(entry, f"expected {' or '.join(DeployType)}")
    return RunStanding(
        run_id=entry.run_id,
        run_sha256=entry.run_sha256,
        bundle_sha256=entry.bundle_sha256,
        deploy_type=DeployType(entry.deploy_type),
        trained_by=entry.trained_by,
        registered_by=entry.who,
        registered_at=entry.at,
        stage=Stage.CHALLENGER,
        stage_by=entry.who,
        stage_at=entry.at,
    )


def _run_of(standing: Standing, entry: Entry) -> RunStanding:
    run = standing.runs.get(entry.run_id)
    if run is None:
        raise _broken(entry, "expected a run that was registered")
    if (run.run_sha256, run.bundle_sha256) != (entry.run_sha256, entry.bundle_sha256):
        raise _broken(entry, "expected the run and the bundle that were registered, by their digests")
    if run.stage not in MAY_BECOME[entry.action]:
        raise _broken(entry, f"a run that is {run.stage} cannot have been {entry.action}")
    if entry.action in GOES_LIVE.values() and entry.action is not GOES_LIVE[run.deploy_type]:
        raise _broken(entry, f"a run for the {run.deploy_type} cannot have been {entry.action}")
    return run


def _with_champion(come: Standing, run: RunStanding, runs: dict[str, RunStanding], entry: Entry) -> Standing:
    if entry.replaces != come.champion:
        raise _broken(entry, "expected it to name the champion that it replaced")
    if come.champion is not None:
        before = runs[come.champion]
        runs[before.run_id] = replace(before, stage=Stage.FORMER, stage_by=entry.who, stage_at=entry.at)
    runs[run.run_id] = replace(run, replaced=come.champion)
    return replace(come, runs=runs, champion=run.run_id)


def is_own(run: RunStanding, names: Iterable[str]) -> bool:
    """True if one of these names trained the run or registered it; capitals and blanks around make no difference."""
    own = {_plain(run.trained_by), _plain(run.registered_by)}
    return any(_plain(name) in own for name in names)


def _plain(name: str) -> str:
    return name.strip().casefold()


def _broken(entry: Entry, said: str) -> JournalBroken:
    return JournalBroken(Fault(number=entry.number, said=said))
