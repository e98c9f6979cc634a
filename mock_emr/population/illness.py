"""Latent illness: who is how ill, and how that moves during a stay. Everything charted comes from it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Floats, Integers

AXES: Final = ("anemia", "renal", "inflammation", "glycemic", "cardiac")
ANEMIA, RENAL, INFLAMMATION, GLYCEMIC, CARDIAC = range(len(AXES))
STEP_HOURS: Final = 6.0


@dataclass(frozen=True, kw_only=True)
class IllnessDynamics:
    """How the latent axes vary; every tuple has one entry per axis, in population standard deviations.

    Args:
        correlation: of the persistent severities, shape (n_axes, n_axes).
        age_slope: change of persistent severity per 10 years of age above 62.
        stay_sd: how far one stay's set point lies from the patient's persistent severity.
        admission_shift: mean excess over the set point on admission, which then decays.
        wander_sd: stationary spread around the set point within a stay.
        memory_hours: time constant of the return to the set point.
        jump_per_day: rate of sudden worsening (a bleed, a new infection).
        jump_mean: mean size of one worsening, exponentially distributed.
        transfusion_at: anemia at or above this (hemoglobin near 7 g/dL) may be transfused.
        transfusion_chance: of a transfusion in one step spent above it.
        transfusion_effect: fall in anemia that one transfusion brings.

    Source: the mean-reverting form is the Ornstein-Uhlenbeck process, Phys. Rev. 36:823,
        doi:10.1103/PhysRev.36.823; the transfusion threshold of 7 g/dL is Carson et al. (2016), JAMA
        316:2025, doi:10.1001/jama.2016.9185. The other numbers are chosen so that the marginals look like
        a ward's, and are not fitted to any data.
    """

    correlation: tuple[tuple[float, ...], ...] = (
        (1.00, 0.40, 0.35, 0.10, 0.20),
        (0.40, 1.00, 0.20, 0.30, 0.40),
        (0.35, 0.20, 1.00, 0.10, 0.10),
        (0.10, 0.30, 0.10, 1.00, 0.30),
        (0.20, 0.40, 0.10, 0.30, 1.00),
    )
    age_slope: tuple[float, ...] = (0.12, 0.15, 0.05, 0.02, 0.25)
    stay_sd: tuple[float, ...] = (0.45, 0.35, 0.70, 0.40, 0.45)
    admission_shift: tuple[float, ...] = (-0.15, 0.25, 0.80, 0.20, 0.25)
    wander_sd: tuple[float, ...] = (0.46, 0.35, 0.55, 0.55, 0.40)
    memory_hours: tuple[float, ...] = (72.0, 60.0, 40.0, 14.0, 60.0)
    jump_per_day: tuple[float, ...] = (0.03, 0.02, 0.04, 0.0, 0.02)
    jump_mean: tuple[float, ...] = (0.90, 0.70, 0.90, 0.0, 0.60)
    transfusion_at: float = 2.6
    transfusion_chance: float = 0.4
    transfusion_effect: float = 0.7


DYNAMICS: Final = IllnessDynamics()


@dataclass(frozen=True, kw_only=True, eq=False)
class IllnessPaths:
    """Severity during each stay on a grid of `STEP_HOURS`, stays one after another.

    Args:
        first: row of ``states`` at which each stay's path begins, shape (n_stays,).
        steps: grid points of each stay, at least 2, shape (n_stays,).
        states: severities, shape (sum of steps, n_axes).
    """

    first: Integers
    steps: Integers
    states: Floats

    def at(self, stay_row: Integers, hours: Floats) -> Floats:
        """Interpolate the severities ``hours`` after each stay's admission.

        Times outside the path get its nearest end.

        Returns:
            Shape (len(stay_row), n_axes).
        """
        position = np.clip(hours / STEP_HOURS, 0, self.steps[stay_row] - 1)
        below = np.minimum(position.astype(np.int64), self.steps[stay_row] - 2)
        share = (position - below)[:, np.newaxis]
        row = self.first[stay_row] + below
        return np.asarray((1 - share) * self.states[row] + share * self.states[row + 1])


def persistent_illness(age_years: Floats, *, rng: Generator, dynamics: IllnessDynamics = DYNAMICS) -> Floats:
    """Draw each patient's persistent severity, shape (n_persons, n_axes)."""
    root = np.linalg.cholesky(np.array(dynamics.correlation))
    drawn = rng.standard_normal((len(age_years), len(AXES))) @ root.T
    by_age = np.outer((age_years - 62) / 10, dynamics.age_slope)
    return np.asarray(drawn + by_age)


def stay_paths(
    illness: Floats, stay_hours: Floats, *, rng: Generator, dynamics: IllnessDynamics = DYNAMICS
) -> IllnessPaths:
    """Draw how severity moves during each stay.

    Args:
        illness: persistent severity of each stay's patient, shape (n_stays, n_axes).
        stay_hours: length of each stay, shape (n_stays,).
        rng: where the draws come from.
        dynamics: how the axes vary.
    """
    steps = np.ceil(stay_hours / STEP_HOURS).astype(np.int64) + 1
    steps = np.maximum(steps, 2)
    first = np.cumsum(steps) - steps
    shape = (int(steps.sum()), len(AXES))
    wander = np.array(dynamics.wander_sd)
    keep = np.exp(-STEP_HOURS / np.array(dynamics.memory_hours))
    shocks = rng.standard_normal(shape) * wander * np.sqrt(1 - keep**2)
    hazard = np.array(dynamics.jump_per_day) * STEP_HOURS / 24
    shocks += (rng.random(shape) < hazard) * rng.standard_exponential(shape) * np.array(dynamics.jump_mean)
    transfused = rng.random(shape[0]) < dynamics.transfusion_chance

    set_point = illness + rng.standard_normal(illness.shape) * np.array(dynamics.stay_sd)
    state = set_point + np.array(dynamics.admission_shift) + rng.standard_normal(illness.shape) * wander
    states = np.empty(shape)
    for step in range(int(steps.max(initial=0))):
        running = np.flatnonzero(steps > step)
        row = first[running] + step
        now = state[running]
        given = transfused[row] & (now[:, ANEMIA] >= dynamics.transfusion_at)
        now[given, ANEMIA] -= dynamics.transfusion_effect
        states[row] = now
        state[running] = set_point[running] + keep * (now - set_point[running]) + shocks[row]
    return IllnessPaths(first=first, steps=steps, states=states)


def loading_matrix(loadings: tuple[dict[str, float], ...]) -> Floats:
    """Turn ``{axis: weight}`` per item into weights of shape (n_items, n_axes); absent axes weigh 0."""
    return np.array([[loading.get(axis, 0.0) for axis in AXES] for loading in loadings])


def chance(prevalence: Floats, severity_score: Floats) -> Floats:
    """Give the probability of an item whose probability is ``prevalence`` at average severity (logistic)."""
    return np.asarray(1 / (1 + (1 - prevalence) / prevalence * np.exp(-severity_score)))
