"""Who sees the advisory, decided by chance, once, and the same on every machine; written down before anything is shown.

Chance is an HMAC of the unit under the site's secret: nobody can foresee an arm from a record number, and any machine
finds the same one. Where small strata must stay balanced, permuted blocks of varying size are drawn from the same
secret; then all that must be stored is how many units a stratum has. Exploration shows a random few below the
threshold and hides a random few above it, so that performance stays measurable although clinicians act on what they
see.

In a stepped wedge chance decides the order in which clusters change over (`deployr_core.wedge`); nothing is stored.

Source: permuted blocks of random size: ICH E9 section 2.3.2, with the sizes concealed; design weights from known
probabilities: C. K. Corbin, M. Baiocchi, J. H. Chen, arXiv:2209.09188.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate

import msgspec

from deployr_core.keyed_hash import keyed_hash
from deployr_core.wedge import SteppedWedge, WedgePlace

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_LONGEST_BLOCK = 200


class RandomizationUnit(StrEnum):
    """What is assigned as a whole: everything about one of these is in one arm."""

    PATIENT = "patient"
    ENCOUNTER = "encounter"
    ORDER = "order"
    PROVIDER = "provider"
    DEPARTMENT = "department"
    TIME_BLOCK = "time-block"


_CLUSTERS = (RandomizationUnit.PROVIDER, RandomizationUnit.DEPARTMENT)
"""What may change over in a stepped wedge: a deployment file lists it by name, and no patient has a name there."""


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Arm(_Declared, frozen=True, kw_only=True):
    """One arm. ``weight``: its share among all weights. ``shows``: whether its clinicians see an advisory at all."""

    name: str
    shows: bool
    weight: int = 1

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError("expected an arm's name of lower-case letters, digits and hyphens, such as control")
        if not 1 <= self.weight <= 100:
            raise ValueError("expected an arm's weight from 1 to 100")


class KeyedHash(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="keyed-hash"):
    """Each unit by itself, without any state."""


class PermutedBlocks(_Declared, frozen=True, kw_only=True, tag_field="kind", tag="permuted-blocks"):
    """Within a stratum each block holds every arm as its weight says; ``sizes`` follow each other by chance."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.sizes)) != len(self.sizes) or len(self.sizes) < 2:
            raise ValueError("expected at least two block sizes, each once: of one size the last arm can be foreseen")


class Exploration(_Declared, frozen=True, kw_only=True):
    """``show_below``: which share of those under the threshold is shown; ``hide_above``: of those above, hidden."""

    show_below: float = 0.0
    hide_above: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.show_below < 1.0 and 0.0 <= self.hide_above < 1.0):
            raise ValueError("expected shares of exploration from 0 to below 1")


class Trial(_Declared, frozen=True, kw_only=True):
    """A randomized trial of one deployment.

    ``version`` changes with anything here, and then every unit is assigned anew. ``strata``: names of what is told
    about a unit when it is assigned, such as ``department``; within each combination the arms are balanced by blocks.

    Raises:
        ValueError: fewer than two arms, a name twice, a block that cannot hold every arm as its weight says, or a
            stepped wedge of other units or arms than it can have.
    """

    trial_id: str
    version: int
    unit: RandomizationUnit
    arms: tuple[Arm, ...]
    method: KeyedHash | PermutedBlocks | SteppedWedge = KeyedHash()
    strata: tuple[str, ...] = ()
    exploration: Exploration = Exploration()

    def __post_init__(self) -> None:
        if not _NAME.match(self.trial_id):
            raise ValueError("expected a trial_id of lower-case letters, digits and hyphens")
        if self.version < 1:
            raise ValueError("expected a version from 1 on")
        if len({arm.name for arm in self.arms}) != len(self.arms) or len(self.arms) < 2:
            raise ValueError("expected at least two arms, each name once")
        if len(set(self.strata)) != len(self.strata):
            raise ValueError("expected each of the strata once")
        if isinstance(self.method, PermutedBlocks) and not all(
            size % self.total_weight == 0 and 0 < size <= _LONGEST_BLOCK for size in self.method.sizes
        ):
            raise ValueError(
                f"expected block sizes that are multiples of {self.total_weight}, the sum of the arms' weights, "
                f"up to {_LONGEST_BLOCK}"
            )
        if isinstance(self.method, SteppedWedge):
            if self.unit not in _CLUSTERS:
                raise ValueError(f"expected a stepped wedge with {' or '.join(_CLUSTERS)} as its unit")
            if sorted((arm.shows, arm.weight) for arm in self.arms) != [(False, 1), (True, 1)]:
                raise ValueError(
                    "expected a stepped wedge of two arms, one that shows and one that does not, without weights"
                )

    @property
    def total_weight(self) -> int:
        """The sum of the arms' weights."""
        return sum(arm.weight for arm in self.arms)

    def probability(self, arm: Arm) -> float:
        """Give the chance of an arm, before anybody knows the place in a block."""
        return arm.weight / self.total_weight


class AssignmentSource(StrEnum):
    """How a unit came to its arm: ``stored`` was assigned before, by whichever method there was.

    In a stepped wedge: ``drawn-order`` was drawn here, ``listed-order`` stands in the deployment file.
    """

    KEYED_HASH = "keyed-hash"
    PERMUTED_BLOCK = "permuted-block"
    STORED = "stored"
    DRAWN_ORDER = "drawn-order"
    LISTED_ORDER = "listed-order"


class Assignment(_Declared, frozen=True, kw_only=True, omit_defaults=True):
    """One unit's arm, as it is stored before anything is shown. ``unit_hash`` tells nobody who or what the unit is.

    ``strata``: what was said of the unit when it was assigned, kept as it was then, in the order of the trial's names.
    ``wedge``: of a stepped wedge alone; there ``probability`` is the arm's in that period.
    """

    trial_id: str
    version: int
    unit: RandomizationUnit
    unit_hash: str
    strata: tuple[str, ...]
    arm: str
    probability: float
    source: AssignmentSource
    wedge: WedgePlace | None = None


class Showing(_Declared, frozen=True, kw_only=True):
    """Whether the advisory is shown, and the chance of that: what design weights are made of.

    ``above``: the score reached the threshold. ``explored``: chance turned the decision round. ``probability``: of what
    was decided, given the score, over arm and exploration together; never 0.
    """

    shown: bool
    above: bool
    explored: bool
    probability: float


def unit_hash(trial: Trial, *, key: bytes, unit_id: str) -> str:
    """Give the unit's hash under the site's secret: 32 hex digits, another one in each trial and version.

    Raises:
        ValueError: a key of under 16 bytes, or no unit.

    Source: RFC 2104.
    """
    if not unit_id:
        raise ValueError(f"expected the id of a {trial.unit}")
    return _hmac(key, trial, trial.unit.value, unit_id)[:32]


def assign(
    trial: Trial, *, key: bytes, unit_id: str, strata: tuple[str, ...] = (), place: int | None = None
) -> Assignment:
    """Assign a unit that was not assigned before.

    Args:
        trial: the trial.
        key: the site's secret, at least 16 bytes.
        unit_id: which patient, encounter, order, ...; it goes no further than into a hash.
        strata: what is said of the unit, one text for each of the trial's strata.
        place: of permuted blocks: how many units its stratum had before it; whoever stores that guards it, so that no
            two units get one place.

    Raises:
        ValueError: other strata than the trial's, a missing place, one too many, or a stepped wedge.
    """
    _check_strata(trial, strata)
    hashed = unit_hash(trial, key=key, unit_id=unit_id)
    match trial.method:
        case PermutedBlocks() as blocks:
            if place is None or place < 0:
                raise ValueError("expected the unit's place in its stratum, from 0 on")
            arm, source = _arm_at(trial, blocks, key, strata, place), AssignmentSource.PERMUTED_BLOCK
        case SteppedWedge():
            raise ValueError("expected clusters of a stepped wedge to be assigned by `assign_cluster`")
        case KeyedHash():
            if place is not None:
                raise ValueError("expected no place: this trial has no blocks")
            arm, source = _arm_of(trial, _chance(key, trial, "arm", hashed)), AssignmentSource.KEYED_HASH
    return Assignment(
        trial_id=trial.trial_id,
        version=trial.version,
        unit=trial.unit,
        unit_hash=hashed,
        strata=strata,
        arm=arm.name,
        probability=trial.probability(arm),
        source=source,
    )


def assign_cluster(
    trial: Trial, wedge: SteppedWedge, *, key: bytes, cluster: str, at: datetime, strata: tuple[str, ...] = ()
) -> Assignment | None:
    """Give a cluster's arm in a stepped wedge at an instant; None if it is none of those that are listed.

    Args:
        trial: the trial.
        wedge: its method.
        key: the site's secret, at least 16 bytes.
        cluster: which department or provider; it goes no further than into a hash.
        at: the event's time, aware; at a step's own instant the step has been taken.
        strata: see `assign`; they have no part in the arm.

    Raises:
        ValueError: other strata than the trial's.
    """
    _check_strata(trial, strata)
    if cluster not in wedge.clusters:
        return None
    changes = _changes(trial, wedge, key)
    period = wedge.period(at)
    has_changed = changes[cluster] <= period
    share = sum(step <= period for step in changes.values()) / len(changes)
    is_chance = wedge.sequence is None or wedge.drawn_by_chance
    return Assignment(
        trial_id=trial.trial_id,
        version=trial.version,
        unit=trial.unit,
        unit_hash=unit_hash(trial, key=key, unit_id=cluster),
        strata=strata,
        arm=next(arm.name for arm in trial.arms if arm.shows is has_changed),
        probability=(share if has_changed else 1.0 - share) if is_chance else 1.0,
        source=AssignmentSource.DRAWN_ORDER if wedge.sequence is None else AssignmentSource.LISTED_ORDER,
        wedge=WedgePlace(cluster=1 + wedge.clusters.index(cluster), period=period),
    )


@lru_cache(maxsize=16)
def _changes(trial: Trial, wedge: SteppedWedge, key: bytes) -> Mapping[str, int]:
    """Draw the order once for all decisions of a trial; see `SteppedWedge.changes`."""
    return wedge.changes(lambda each: _hmac(key, trial, "wedge", each))


def stratum_hash(trial: Trial, *, key: bytes, strata: tuple[str, ...]) -> str:
    """Give what a stratum's counter is stored under: 32 hex digits that tell nothing of the stratum."""
    return _hmac(key, trial, "stratum", *strata)[:32]


def showing(
    trial: Trial, assignment: Assignment, *, key: bytes, packet_id: str, score: float, threshold: float
) -> Showing:
    """Decide for one packet of an assigned unit whether its advisory is shown.

    The exploration's draw is the packet's own, so that each inference of a patient is explored by itself.

    Raises:
        ValueError: the assignment is not of this trial and version.
    """
    arm = next((arm for arm in trial.arms if arm.name == assignment.arm), None)
    if (assignment.trial_id, assignment.version) != (trial.trial_id, trial.version) or arm is None:
        raise ValueError("expected an assignment of this trial and version")
    above = score >= threshold
    turned = trial.exploration.hide_above if above else trial.exploration.show_below
    explored = _chance(key, trial, "exploration", packet_id) < turned
    shown = arm.shows and (above != explored)
    chance_shown = _chance_of_showing(trial, assignment, arm) * ((1.0 - turned) if above else turned)
    return Showing(
        shown=shown,
        above=above,
        explored=explored and arm.shows,
        probability=chance_shown if shown else 1.0 - chance_shown,
    )


def _check_strata(trial: Trial, strata: tuple[str, ...]) -> None:
    if len(strata) != len(trial.strata):
        raise ValueError(f"expected one text for each of the strata: {', '.join(trial.strata) or 'none'}")


def _chance_of_showing(trial: Trial, assignment: Assignment, arm: Arm) -> float:
    """Give the chance of an arm that shows, as it was when the unit was assigned."""
    if assignment.wedge is None:
        return sum(trial.probability(each) for each in trial.arms if each.shows)
    return assignment.probability if arm.shows else 1.0 - assignment.probability


def _arm_of(trial: Trial, chance: float) -> Arm:
    bounds = accumulate(arm.weight for arm in trial.arms)
    # The last bound is the total, and chance is below 1.
    return next(arm for arm, bound in zip(trial.arms, bounds, strict=True) if chance * trial.total_weight < bound)


def _arm_at(trial: Trial, blocks: PermutedBlocks, key: bytes, strata: tuple[str, ...], place: int) -> Arm:
    """Find the stratum's block that holds the place, and give the arm there.

    Blocks come in rounds that hold every size once, in an order of chance: so the block is found at once, however many
    there were before it.
    """
    number, first = divmod(place, sum(blocks.sizes))
    in_order = sorted(blocks.sizes, key=lambda size: _hmac(key, trial, "size", *strata, str(number), str(size)))
    for size in in_order:
        if first < size:
            break
        first -= size
    arms = [arm for arm in trial.arms for _ in range(arm.weight * size // trial.total_weight)]
    # Sorting by independent draws is a fair shuffle.
    order = sorted(range(size), key=lambda each: _hmac(key, trial, "block", *strata, str(number), str(size), str(each)))
    return arms[order[first]]


def _chance(key: bytes, trial: Trial, *parts: str) -> float:
    """Draw a number in [0, 1) that depends on the secret, the trial and the parts."""
    # 53 bits fill a float64 exactly; with all 64 the largest draws would round up to 1.
    return (int(_hmac(key, trial, *parts)[:16], 16) >> 11) / 2**53


def _hmac(key: bytes, trial: Trial, *parts: str) -> str:
    return keyed_hash(key, trial.trial_id, str(trial.version), *parts)
