"""Whole trials on simulated orders: the arms are alike, no effect is found where there is none, and one where there is.

The numbers in docs/trials.md are the ones that are computed here. Every order goes the way of a real one: assigned,
drawn for exploration, decided about. The world is made of one seed, so that the figures stay as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from deployr_core.packet import Mode
from deployr_core.trial import (
    Arm,
    Exploration,
    PermutedBlocks,
    RandomizationUnit,
    Trial,
    assign,
    showing,
)
from deployr_serve.core.decide import decide
from deployr_serve.core.policy import Policy

DOCS = Path(__file__).parents[3] / "docs" / "trials.md"
KEY = b"a secret of the site's own"
INFERENCES, PATIENTS = 20_000, 8_000
THRESHOLD, HIDE_ABOVE, EFFECT = 0.5, 0.05, 0.08
"""The effect: how much likelier an order is taken back where the advisory was shown."""
DEPARTMENTS, WARDS = ("medicine", "surgery", "intensive-care"), 10
Z = 1.96


@dataclass(frozen=True, kw_only=True)
class World:
    """Patients and their orders, before anybody is assigned: arrays of length `PATIENTS` or `INFERENCES`."""

    age: np.ndarray
    female: np.ndarray
    department: np.ndarray
    patient: np.ndarray
    score: np.ndarray
    taken_back_anyway: np.ndarray
    draw: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a trial decided about the world, one entry for each inference, and what became of the orders."""

    arm: np.ndarray
    above: np.ndarray
    shown: np.ndarray
    probability: np.ndarray
    taken_back: np.ndarray


def policy_of():
    trial = Trial(
        trial_id="simulated",
        version=1,
        unit=RandomizationUnit.PATIENT,
        arms=(Arm(name="control", shows=False), Arm(name="advisory", shows=True)),
        method=PermutedBlocks(sizes=(4, 6, 8)),
        strata=("department", "ward"),
        exploration=Exploration(hide_above=HIDE_ABOVE),
    )
    return Policy(schema_version=1, model="hematocrit", mode=Mode.TRIAL, threshold=THRESHOLD, trial=trial)


@pytest.fixture(scope="module")
def world():
    """Give 20,000 orders of 8,000 patients; sicker and older ones have higher scores and are taken back less."""
    rng = np.random.default_rng(20_260_101)
    age = rng.normal(62, 16, PATIENTS).clip(18, 100)
    department = rng.choice(3, PATIENTS, p=(0.5, 0.3, 0.2))
    # Everybody has an order; the others fall to some more than to others.
    patient = np.concatenate([np.arange(PATIENTS), rng.choice(PATIENTS, INFERENCES - PATIENTS, p=_uneven(rng))])
    score = rng.beta(2, 2, INFERENCES) * 0.8 + 0.2 * (age[patient] / 100)
    habit = rng.normal(0, 0.03, PATIENTS)[patient]
    chance = (0.12 - 0.04 * (department[patient] == 2) - 0.05 * (score - 0.5) + habit).clip(0.01, 0.9)
    return World(
        age=age,
        female=rng.random(PATIENTS) < 0.52,
        department=department,
        patient=rng.permutation(patient),
        score=score,
        taken_back_anyway=chance,
        draw=rng.random(INFERENCES),
    )


def _uneven(rng):
    weights = rng.gamma(1.0, 1.0, PATIENTS)
    return weights / weights.sum()


@pytest.fixture(scope="module")
def null(world):
    """Give what a trial of an advisory that changes nothing makes of the world, each order on its way through."""
    policy = policy_of()
    trial, places, assigned = policy.trial, Counter(), {}
    rows = []
    for number, (patient, score) in enumerate(zip(world.patient.tolist(), world.score.tolist(), strict=True)):
        if patient not in assigned:
            stratum = (DEPARTMENTS[world.department[patient]], f"ward {patient % WARDS}")
            assigned[patient] = assign(trial, key=KEY, unit_id=str(patient), strata=stratum, place=places[stratum])
            places[stratum] += 1
        drawn = showing(trial, assigned[patient], key=KEY, packet_id=f"p{number}", score=score, threshold=THRESHOLD)
        decision = decide(policy, score=score, assignment=assigned[patient], showing=drawn)
        rows.append((decision.assignment.arm == "advisory", drawn.above, decision.advise, drawn.probability))
    arm, above, shown, probability = (np.array(column) for column in zip(*rows, strict=True))
    return Run(arm=arm, above=above, shown=shown, probability=probability, taken_back=_taken_back(world, shown, 0.0))


@pytest.fixture(scope="module")
def effective(world, null):
    """Give what the same trial makes of it where the advisory works."""
    return replace(null, taken_back=_taken_back(world, null.shown, EFFECT))


def _taken_back(world, shown, effect):
    return world.draw < world.taken_back_anyway + effect * shown


def difference(world, run, group, weights=None):
    """Give the difference of the shares taken back, group less the rest, among occasions; with its 95 % interval.

    The variance is between patients, because the orders of one patient are alike.

    Source: the linearised variance of a ratio of cluster totals: W. G. Cochran, Sampling Techniques (1977), 11.
    """
    weights = np.ones(INFERENCES) if weights is None else weights
    shares, variances = [], []
    for rows in (run.above & group, run.above & ~group):
        weight = weights * rows
        share = (weight * run.taken_back).sum() / weight.sum()
        residual = np.bincount(world.patient, weights=weight * (run.taken_back - share), minlength=PATIENTS)
        clusters = (np.bincount(world.patient, weights=rows, minlength=PATIENTS) > 0).sum()
        shares.append(share)
        variances.append((residual**2).sum() / weight.sum() ** 2 * clusters / (clusters - 1))
    middle, half = shares[0] - shares[1], Z * float(np.sqrt(sum(variances)))
    return middle, middle - half, middle + half


def balance(world, run):
    """Give for each characteristic its mean in both arms, and the difference in standard deviations."""
    of_patient = np.zeros(PATIENTS, dtype=bool)
    of_patient[world.patient] = run.arm
    by_patient = {
        "age, years": world.age,
        "female": world.female,
        **{name: world.department == number for number, name in enumerate(DEPARTMENTS)},
        "orders per patient": np.bincount(world.patient, minlength=PATIENTS),
    }
    by_order = {"score": world.score, "score at or above the threshold": run.above}
    rows = {}
    for values, group in ((by_patient, of_patient), (by_order, run.arm)):
        for name, each in values.items():
            advisory, control = np.asarray(each[group], float), np.asarray(each[~group], float)
            pooled = np.sqrt((advisory.var(ddof=1) + control.var(ddof=1)) / 2)
            rows[name] = (control.mean(), advisory.mean(), (advisory.mean() - control.mean()) / pooled)
    return rows, (int((~of_patient).sum()), int(of_patient.sum()))


def tables(world, null, effective):
    """Render what docs/trials.md shows."""
    rows, (control, advisory) = balance(world, null)
    lines = ["| | control | advisory | difference, SD |", "|---|---:|---:|---:|"]
    lines += [f"| patients | {control} | {advisory} | |"]
    lines += [f"| {name} | {a:.3f} | {b:.3f} | {d:+.3f} |" for name, (a, b, d) in rows.items()]
    lines += ["", "| trial | compared | true | found | 95 % interval |", "|---|---|---:|---:|---:|"]
    for name, outcome, true in (("A/A", null, 0.0), ("A/B", effective, EFFECT)):
        for how, estimate, effect in (
            ("arms, as assigned", difference(world, outcome, outcome.arm), true * (1 - HIDE_ABOVE)),
            ("shown or not, weighted", weighted(world, outcome), true),
        ):
            middle, low, high = (100 * each for each in estimate)
            lines.append(f"| {name} | {how} | {100 * effect:+.1f} | {middle:+.2f} | {low:+.2f} to {high:+.2f} |")
    return "\n".join(lines)


def weighted(world, outcome):
    return difference(world, outcome, outcome.shown, weights=1.0 / outcome.probability)


def test_the_arms_of_twenty_thousand_inferences_are_alike(world, null):
    rows, (control, advisory) = balance(world, null)
    # Each stratum is cut within a block of at most 8, with up to 4 too many of one arm.
    assert abs(control - advisory) <= len(DEPARTMENTS) * WARDS * 4
    # Of patients drawn by chance, a difference has a standard deviation of 2 / sqrt(8000) = 0.022.
    assert all(abs(standardised) < 4 * 2 / PATIENTS**0.5 for _, _, standardised in rows.values())


def test_an_a_a_trial_finds_no_difference(world, null):
    for _, low, high in (difference(world, null, null.arm), weighted(world, null)):
        assert low < 0.0 < high


def test_an_a_b_trial_finds_the_effect_within_its_interval(world, effective):
    _, low, high = difference(world, effective, effective.arm)
    assert 0.0 < low < EFFECT * (1 - HIDE_ABOVE) < high
    _, low, high = weighted(world, effective)
    assert 0.0 < low < EFFECT < high


def test_the_design_weights_are_the_shares_that_were_drawn(effective):
    above = effective.above
    # Half are in the arm that shows, and of those 95 in 100 are shown.
    assert set(np.unique(effective.probability[above & effective.shown])) == {0.5 * (1 - HIDE_ABOVE)}
    assert effective.shown[above].mean() == pytest.approx(0.5 * (1 - HIDE_ABOVE), abs=0.02)
    assert not effective.shown[~above].any()


def test_the_figures_in_the_documentation_are_these(world, null, effective):
    assert tables(world, null, effective) in DOCS.read_text(encoding="utf-8")


@pytest.mark.proof
def test_of_forty_a_a_trials_about_one_in_twenty_finds_what_is_not_there(world, null):
    found = 0
    for version in range(1, 41):
        trial = Trial(trial_id="alike", version=version, unit=RandomizationUnit.PATIENT, arms=policy_of().trial.arms)
        arms = np.array([assign(trial, key=KEY, unit_id=str(each)).arm == "advisory" for each in range(PATIENTS)])
        _, low, high = difference(world, null, arms[world.patient])
        found += not low < 0.0 < high
    # Of 40 at 5 %, more than 6 come once in 300.
    assert found <= 6
