"""Stepped wedges: the arm follows from cluster and instant, nobody goes back, and chances are those of the order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.packet_ids import derive_clinician_hash
from deployr_core.trial import (
    Arm,
    Assignment,
    AssignmentSource,
    Exploration,
    PermutedBlocks,
    RandomizationUnit,
    Trial,
    assign,
    assign_cluster,
    showing,
    unit_hash,
)
from deployr_core.wedge import SteppedWedge, WedgePlace

KEY = b"a secret of the site's own"
FIRST = datetime.fromisoformat("2026-01-05T07:00:00-05:00")
STEPS = (FIRST, FIRST + timedelta(days=60), FIRST + timedelta(days=120))
WARDS = ("7A", "7B", "8A", "8B", "9A", "9B")
ARMS = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))


def wedge_of(**changes: Any) -> SteppedWedge:
    return SteppedWedge(**{"clusters": WARDS, "steps": STEPS, **changes})


def trial_of(wedge: SteppedWedge, **changes: Any) -> Trial:
    settings: dict[str, Any] = {
        "trial_id": "stewardship",
        "version": 1,
        "unit": RandomizationUnit.DEPARTMENT,
        "arms": ARMS,
        "method": wedge,
    }
    return Trial(**{**settings, **changes})


def found(wedge: SteppedWedge, cluster: str, at: datetime, *, key: bytes = KEY, **changes: Any) -> Assignment:
    made = assign_cluster(trial_of(wedge, **changes), wedge, key=key, cluster=cluster, at=at)
    assert made is not None
    return made


LISTED = wedge_of(sequence=(("8B", "7A"), ("9B",), ("7B", "8A", "9A")))


def test_a_step_is_taken_at_its_own_instant_and_not_before() -> None:
    just_before = STEPS[1] - timedelta(microseconds=1)
    assert [LISTED.period(at) for at in (STEPS[0] - timedelta(days=9), STEPS[0], just_before, STEPS[1], STEPS[2])] == [
        *(0, 1, 1, 2, 3)
    ]
    assert found(LISTED, "9B", just_before).arm == "control"
    assert found(LISTED, "9B", STEPS[1]).arm == "advisory"
    # The same instant, whoever writes it.
    assert found(LISTED, "9B", STEPS[1].astimezone(UTC)).arm == "advisory"


def test_a_listed_order_is_kept_and_its_arms_are_certain() -> None:
    made = found(LISTED, "9A", STEPS[1])
    assert made == Assignment(
        trial_id="stewardship",
        version=1,
        unit=RandomizationUnit.DEPARTMENT,
        unit_hash=unit_hash(trial_of(LISTED), key=KEY, unit_id="9A"),
        strata=(),
        arm="control",
        probability=1.0,
        source=AssignmentSource.LISTED_ORDER,
        wedge=WedgePlace(cluster=5, period=2),
    )
    assert [found(LISTED, ward, STEPS[1]).arm for ward in ("7A", "8B", "9B")] == ["advisory"] * 3


def test_an_order_that_fell_by_chance_elsewhere_has_the_chances_of_any_order() -> None:
    drawn = msgspec.structs.replace(LISTED, drawn_by_chance=True)
    # Two of six have changed over after the first step, three after the second.
    assert [found(drawn, "7A", at).probability for at in (STEPS[0], STEPS[1], STEPS[2])] == [2 / 6, 3 / 6, 1.0]
    assert [found(drawn, "7B", at).probability for at in (STEPS[0], STEPS[1])] == [1 - 2 / 6, 1 - 3 / 6]
    assert found(drawn, "7B", FIRST - timedelta(days=1)).probability == 1.0


def test_a_drawn_order_is_the_same_on_every_machine_however_the_file_lists_it() -> None:
    straight, turned = wedge_of(), wedge_of(clusters=WARDS[::-1])
    for ward in WARDS:
        for at in (FIRST - timedelta(days=1), *STEPS):
            one, other = found(straight, ward, at), found(turned, ward, at)
            assert (one.arm, one.probability, one.unit_hash) == (other.arm, other.probability, other.unit_hash)
    assert found(straight, "7A", FIRST).source is AssignmentSource.DRAWN_ORDER


def test_another_secret_trial_or_version_draws_another_order() -> None:
    def steps(**changes: Any) -> tuple[int, ...]:
        return tuple(sum(found(wedge_of(), ward, at, **changes).arm == "control" for at in STEPS) for ward in WARDS)

    others = [{"key": b"another site's own secret"}, {"trial_id": "other"}, {"version": 2}, {"version": 3}]
    assert len({steps(), *(steps(**each) for each in others)}) >= 4


def test_each_step_takes_as_many_clusters_as_can_be() -> None:
    seven = wedge_of(clusters=(*WARDS, "10A"))
    changed = [sum(found(seven, ward, at).arm == "advisory" for ward in seven.clusters) for at in STEPS]
    # Seven over three steps: three, two and two.
    assert changed == [3, 5, 7]


def test_every_cluster_comes_first_as_often_as_any_other() -> None:
    keys = [f"the secret of site {number}".encode() for number in range(900)]
    first = Counter(ward for key in keys for ward in WARDS if found(wedge_of(), ward, FIRST, key=key).arm == "advisory")
    # Each of six is among the first two with a chance of a third: 300 of 900, with a deviation of 14.
    assert all(abs(first[ward] - 300) < 4.5 * 14 for ward in WARDS)


@given(
    clusters=st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=2, max_size=12, unique=True),
    gaps=st.lists(st.integers(1, 10**6), min_size=2, max_size=6),
    secret=st.binary(min_size=16, max_size=20),
    seconds=st.lists(st.integers(-(10**6), 10**7), min_size=2, max_size=8),
    which=st.integers(0, 11),
)
def test_who_has_changed_over_never_goes_back(
    clusters: list[str], gaps: list[int], secret: bytes, seconds: list[int], which: int
) -> None:
    steps = [FIRST]
    for gap in gaps[: max(1, len(clusters) - 1)]:
        steps.append(steps[-1] + timedelta(seconds=gap))
    wedge = SteppedWedge(clusters=tuple(clusters), steps=tuple(steps))
    cluster = clusters[which % len(clusters)]
    made = [found(wedge, cluster, FIRST + timedelta(seconds=each), key=secret) for each in sorted(seconds)]
    shown = [each.arm == "advisory" for each in made]
    assert shown == sorted(shown)
    assert all(0.0 < each.probability <= 1.0 for each in made)
    assert found(wedge, cluster, FIRST - timedelta(seconds=1), key=secret).arm == "control"
    assert found(wedge, cluster, steps[-1], key=secret).arm == "advisory"


@given(at=st.integers(-100, 300), secret=st.binary(min_size=16, max_size=16))
def test_the_chances_of_a_period_are_the_shares_of_its_arms(at: int, secret: bytes) -> None:
    wedge, instant = wedge_of(clusters=(*WARDS, "10A")), FIRST + timedelta(days=at)
    made = [found(wedge, ward, instant, key=secret) for ward in wedge.clusters]
    share = Fraction(sum(each.arm == "advisory" for each in made), 7)
    for each in made:
        assert each.probability == pytest.approx(float(share if each.arm == "advisory" else 1 - share))


def test_a_cluster_that_is_not_listed_has_no_arm() -> None:
    assert assign_cluster(trial_of(LISTED), LISTED, key=KEY, cluster="7a", at=FIRST) is None


def test_strata_are_kept_as_told_and_have_no_part_in_the_arm() -> None:
    trial = trial_of(LISTED, strata=("hospital",))
    made = assign_cluster(trial, LISTED, key=KEY, cluster="7A", at=FIRST, strata=("north",))
    assert made is not None
    assert (made.strata, made.arm) == (("north",), "advisory")
    with pytest.raises(ValueError, match="one text for each of the strata: hospital"):
        assign_cluster(trial, LISTED, key=KEY, cluster="7A", at=FIRST)


def test_design_weights_are_of_the_period_and_of_exploration() -> None:
    wedge = wedge_of()
    trial = trial_of(wedge, exploration=Exploration(hide_above=0.05))
    for ward in WARDS:
        # After the second step four of six have changed over.
        made = assign_cluster(trial, wedge, key=KEY, cluster=ward, at=STEPS[1])
        assert made is not None
        drawn = showing(trial, made, key=KEY, packet_id="p01", score=0.9, threshold=0.5)
        assert drawn.shown == (made.arm == "advisory" and not drawn.explored)
        chance = 4 / 6 * 0.95
        assert drawn.probability == pytest.approx(chance if drawn.shown else 1 - chance)


def test_before_the_first_step_nobody_could_have_been_shown_anything() -> None:
    wedge = wedge_of()
    trial = trial_of(wedge)
    made = found(wedge, "7A", FIRST - timedelta(days=1))
    drawn = showing(trial, made, key=KEY, packet_id="p01", score=0.9, threshold=0.5)
    assert (drawn.shown, drawn.probability) == (False, 1.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clusters": ("7A", "7A", "7B")}, "each of clusters once"),
        ({"clusters": ("7A", " ", "7B")}, "none of them empty"),
        ({"steps": STEPS[:1]}, "at least two steps"),
        ({"clusters": ("7A", "7B")}, "a cluster for each of them"),
        ({"steps": (STEPS[1], STEPS[0])}, "from the earliest to the latest"),
        ({"steps": (STEPS[0], STEPS[0])}, "each once"),
        ({"steps": (datetime(2026, 1, 5), datetime(2026, 2, 5))}, "with their offset"),  # noqa: DTZ001 what is refused
        ({"sequence": (WARDS[:3], WARDS[3:])}, "for each of the steps"),
        ({"sequence": (WARDS, (), ())}, "at least one cluster for each"),
        ({"sequence": (WARDS[:2], WARDS[2:4], ("9A", "9C"))}, "names each of clusters once, and no other"),
        ({"drawn_by_chance": True}, "only with a sequence"),
    ],
)
def test_a_list_that_is_no_stepped_wedge_is_refused_with_what_was_expected(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        wedge_of(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unit": RandomizationUnit.PATIENT}, "with provider or department as its unit"),
        ({"arms": (*ARMS, Arm(name="more", shows=True))}, "a stepped wedge of two arms"),
        ({"arms": (ARMS[0], Arm(name="advisory", shows=True, weight=2))}, "without weights"),
        ({"arms": (ARMS[0], Arm(name="other", shows=False))}, "one that shows"),
    ],
)
def test_other_units_and_arms_than_a_wedge_can_have_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        trial_of(wedge_of(), **changes)


def test_clusters_are_not_assigned_as_units_are() -> None:
    with pytest.raises(ValueError, match="assign_cluster"):
        assign(trial_of(wedge_of()), key=KEY, unit_id="7A")


def test_assignments_of_other_designs_are_written_as_they_always_were() -> None:
    trial = Trial(
        trial_id="t", version=1, unit=RandomizationUnit.PATIENT, arms=ARMS, method=PermutedBlocks(sizes=(2, 4))
    )
    written = msgspec.to_builtins(assign(trial, key=KEY, unit_id="p1", place=0))
    assert list(written) == [*("trial_id", "version", "unit", "unit_hash", "strata", "arm", "probability", "source")]
    made = found(LISTED, "7A", FIRST)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Assignment) == made


def test_a_clinician_is_another_hash_than_the_unit_and_under_another_secret() -> None:
    trial = trial_of(wedge_of(), unit=RandomizationUnit.PROVIDER)
    hashed = derive_clinician_hash(KEY, "7A")
    assert len(hashed) == 32
    assert hashed == derive_clinician_hash(KEY, "7A")
    assert len({hashed, derive_clinician_hash(KEY, "7B"), derive_clinician_hash(KEY[::-1], "7A")}) == 3
    assert hashed != unit_hash(trial, key=KEY, unit_id="7A")
    with pytest.raises(ValueError, match="16 bytes"):
        derive_clinician_hash(b"short", "7A")
