"""Randomization: balanced, independent of everything about the unit, repeatable anywhere, and of known probability."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from functools import cache
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from scipy import stats

from deployr_core.trial import (
    Arm,
    AssignmentSource,
    Exploration,
    KeyedHash,
    PermutedBlocks,
    RandomizationUnit,
    Trial,
    assign,
    showing,
    stratum_hash,
    unit_hash,
)

KEY = b"a secret of the site's own"
ARMS = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))
UNITS = 100_000
RARE = 1e-4
"""A fair draw falls below this p-value once in ten thousand; the draws are fixed, so a test that passed passes."""


def trial_of(**changes):
    settings = {"trial_id": "hematocrit-alert", "version": 1, "unit": RandomizationUnit.PATIENT, "arms": ARMS}
    return Trial(**{**settings, **changes})


def arms_of(trial, unit_ids, *, key=KEY):
    return [assign(trial, key=key, unit_id=unit_id).arm for unit_id in unit_ids]


@cache
def arms_of_numbers(trial):
    """Give the arm of each unit that is a number, from 0 to UNITS: drawn once for all that ask about it."""
    return arms_of(trial, map(str, range(UNITS + 1)))


def test_arms_are_as_frequent_as_their_weights_say():
    trial = trial_of(arms=(*ARMS, Arm(name="advisory-with-reasons", shows=True, weight=3)))
    counts = Counter(arms_of(trial, (f"MRN{number}" for number in range(UNITS))))
    observed = [counts[arm.name] for arm in trial.arms]
    assert stats.chisquare(observed, [UNITS * share for share in (1 / 5, 1 / 5, 3 / 5)]).pvalue > RARE


@pytest.mark.parametrize(
    "what_of",
    [lambda n: n % 2, lambda n: n % 10, lambda n: len(str(n)), lambda n: n // 10_000],
    ids=["odd-or-even", "last-digit", "length", "ten-thousands"],
)
def test_an_arm_tells_nothing_of_the_record_number(what_of):
    numbers = range(1, UNITS + 1)
    arms = arms_of_numbers(trial_of())[1:]
    table = Counter(zip(map(what_of, numbers), arms, strict=True))
    kinds = sorted({kind for kind, _ in table})
    cells = [
        [table[kind, arm.name] for arm in ARMS]
        for kind in kinds
        if table[kind, "control"] + table[kind, "advisory"] > 50
    ]
    assert stats.chi2_contingency(cells).pvalue > RARE


def test_two_trials_and_two_versions_of_one_assign_independently():
    units = [str(number) for number in range(UNITS)]
    first = arms_of_numbers(trial_of())[:UNITS]
    for other in (trial_of(trial_id="another"), trial_of(version=2)):
        table = Counter(zip(first, arms_of(other, units), strict=True))
        cells = [[table[a.name, b.name] for b in ARMS] for a in ARMS]
        assert stats.chi2_contingency(cells).pvalue > RARE


def test_the_same_unit_gets_the_same_arm_whoever_asks_and_another_key_another_draw():
    units = [str(number) for number in range(1000)]
    assert arms_of(trial_of(), units) == arms_of(trial_of(), units)
    assert arms_of(trial_of(), units) != arms_of(trial_of(), units, key=b"another site's secret")


def test_a_units_hash_is_an_hmac_that_others_can_compute():
    text = "16:hematocrit-alert1:17:patient4:1234"
    expected = hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()[:32]
    assert unit_hash(trial_of(), key=KEY, unit_id="1234") == expected


def test_an_assignment_says_how_likely_it_was_and_nothing_of_who_it_is_about():
    trial = trial_of(
        arms=(Arm(name="control", shows=False), Arm(name="advisory", shows=True, weight=3)), strata=("ward",)
    )
    assignment = assign(trial, key=KEY, unit_id="MRN-4711", strata=("7A",))
    assert assignment.probability == {"control": 0.25, "advisory": 0.75}[assignment.arm]
    assert (assignment.source, assignment.strata) == (AssignmentSource.KEYED_HASH, ("7A",))
    assert "4711" not in msgspec.json.encode(assignment).decode()


BLOCKS = trial_of(method=PermutedBlocks(sizes=(4, 6, 8)), strata=("ward",))


def blocked(places, *, ward="7A", trial=BLOCKS):
    return [assign(trial, key=KEY, unit_id=f"p{place}", strata=(ward,), place=place).arm for place in places]


def test_blocks_keep_the_arms_of_a_stratum_within_half_a_block_of_each_other_at_every_moment():
    difference = np.cumsum([1 if arm == "control" else -1 for arm in blocked(range(600))])
    assert np.abs(difference).max() <= 4
    # It comes back to 0 at the end of every block: at least once in 8 places.
    assert np.diff(np.flatnonzero(difference == 0)).max() <= 8


def test_blocks_differ_between_strata_and_the_next_arm_cannot_be_told_from_the_last():
    one, other = (blocked(range(600), ward=ward) for ward in ("7A", "7B"))
    assert 0.4 < np.mean([a == b for a, b in zip(one, other, strict=True)]) < 0.6
    # In blocks of 2 every second arm would be known; here the best guess, the other arm, is right 5 times in 9 or so.
    alternates = np.mean([a != b for a, b in pairwise(one)])
    assert 0.5 < alternates < 0.65


def test_every_place_of_a_first_block_is_as_likely_either_arm():
    wards = [f"ward {number}" for number in range(4000)]
    for place in range(4):
        controls = sum(blocked([place], ward=ward) == ["control"] for ward in wards)
        assert stats.binomtest(controls, len(wards)).pvalue > RARE


def test_blocks_with_weights_hold_each_arm_as_its_weight_says():
    arms = (Arm(name="control", shows=False), Arm(name="advisory", shows=True, weight=2))
    trial = trial_of(arms=arms, method=PermutedBlocks(sizes=(3, 6)), strata=("ward",))
    counts = Counter(blocked(range(600), trial=trial))
    assert abs(counts["advisory"] - 400) <= 4


def test_a_place_is_needed_for_blocks_and_refused_without_them():
    with pytest.raises(ValueError, match="place in its stratum"):
        assign(BLOCKS, key=KEY, unit_id="p1", strata=("7A",))
    with pytest.raises(ValueError, match="no place"):
        assign(trial_of(), key=KEY, unit_id="p1", place=0)


def test_strata_are_counted_under_a_hash():
    assert stratum_hash(BLOCKS, key=KEY, strata=("7A",)) != stratum_hash(BLOCKS, key=KEY, strata=("7B",))
    assert "7A" not in stratum_hash(BLOCKS, key=KEY, strata=("7A",))


EXPLORING = trial_of(exploration=Exploration(show_below=0.05, hide_above=0.1))


def shown(trial, *, score, arm, packets=20_000):
    assignment = msgspec.structs.replace(assign(trial, key=KEY, unit_id="p1"), arm=arm)
    return [
        showing(trial, assignment, key=KEY, packet_id=f"p{number}", score=score, threshold=0.5)
        for number in range(packets)
    ]


@pytest.mark.parametrize(("score", "share"), [(0.49, 0.05), (0.5, 0.9), (1.0, 0.9)])
def test_exploration_shows_and_hides_as_often_as_declared(score, share):
    decisions = shown(EXPLORING, score=score, arm="advisory")
    assert stats.binomtest(sum(each.shown for each in decisions), len(decisions), share).pvalue > RARE
    assert all(each.above == (score >= 0.5) for each in decisions)
    assert all(each.explored == (each.shown != each.above) for each in decisions)


def test_a_control_arm_is_never_shown_anything_explored_or_not():
    decisions = shown(EXPLORING, score=0.9, arm="control")
    assert not any(each.shown or each.explored for each in decisions)


@pytest.mark.parametrize(
    ("score", "arm", "shows", "probability"),
    [
        (0.9, "advisory", True, 0.5 * 0.9),
        (0.9, "advisory", False, 1 - 0.5 * 0.9),
        (0.9, "control", False, 1 - 0.5 * 0.9),
        (0.1, "advisory", True, 0.5 * 0.05),
        (0.1, "advisory", False, 1 - 0.5 * 0.05),
    ],
)
def test_the_probability_of_a_decision_is_over_arm_and_exploration_together(score, arm, shows, probability):
    (found,) = {each.probability for each in shown(EXPLORING, score=score, arm=arm) if each.shown == shows}
    assert found == pytest.approx(probability)


def test_weighting_by_the_probability_counts_everybody_who_was_above_the_threshold():
    trial = EXPLORING
    weight = 0.0
    for number in range(20_000):
        assignment = assign(trial, key=KEY, unit_id=f"patient {number}")
        decision = showing(trial, assignment, key=KEY, packet_id=f"p{number}", score=0.9, threshold=0.5)
        weight += decision.shown / decision.probability
    # Each of 20,000 is shown with probability .45: a standard deviation of sqrt(n (1 - p) / p) = 156 in the sum.
    assert abs(weight - 20_000) < 4 * 156


def test_an_assignment_of_another_version_decides_nothing():
    assignment = assign(trial_of(), key=KEY, unit_id="p1")
    with pytest.raises(ValueError, match="this trial and version"):
        showing(trial_of(version=2), assignment, key=KEY, packet_id="p", score=0.9, threshold=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"arms": ARMS[:1]},
        {"arms": (ARMS[0], ARMS[0])},
        {"version": 0},
        {"trial_id": "Hematocrit Alert"},
        {"strata": ("ward", "ward")},
        {"method": PermutedBlocks(sizes=(3, 4))},
        {"method": PermutedBlocks(sizes=(4, 1000))},
    ],
    ids=str,
)
def test_impossible_trials_are_refused(wrong):
    with pytest.raises(ValueError, match="expected "):
        trial_of(**wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PermutedBlocks(sizes=(4,)),
        lambda: Exploration(show_below=1.0),
        lambda: Arm(name="control", shows=False, weight=0),
        lambda: Arm(name="the control", shows=False),
        lambda: unit_hash(trial_of(), key=b"short", unit_id="p1"),
        lambda: unit_hash(trial_of(), key=KEY, unit_id=""),
        lambda: assign(trial_of(strata=("ward",)), key=KEY, unit_id="p1"),
    ],
)
def test_impossible_parts_are_refused(make):
    with pytest.raises(ValueError, match="expected "):
        make()


def test_a_trial_reads_back_from_its_file_as_it_was():
    assert msgspec.json.decode(msgspec.json.encode(BLOCKS), type=Trial) == BLOCKS
    assert isinstance(msgspec.json.decode(msgspec.json.encode(trial_of()), type=Trial).method, KeyedHash)
