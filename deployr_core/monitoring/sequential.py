"""Looking at a trial while it runs, as often as anybody likes, without finding by and by what is not there.

**The headline is the always-valid interval.** A dashboard is opened on any day by anybody, nobody knows how many looks
there will be or when the trial ends, and a rule that needs such a plan is broken by the first unplanned look. Its price
is width: at the planned end it is 1.55 times as wide as an interval that is looked at once. Where a committee has
a plan and keeps to it, `spending_bounds` gives the narrower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployr_core.bootstrap import Floats
from deployr_core.monitoring.clustered import Effect

ALPHA = 0.05
FEWEST_CLUSTERS = 50
"""Before that many the estimate is not yet normal, and an interval that must hold always cannot be given."""

_GRID = 301
_NEVER = 8.0
"""A z that chance reaches once in 10^15: the bound of a look that may spend less than that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One look at the running trial. ``stop``: 0 is outside the interval, or its z is past the bound."""

    value: float
    low: float
    high: float
    stop: bool


def always_valid(effect: Effect, *, planned_standard_error: float, alpha: float = ALPHA) -> Look:
    """Give an interval that covers the effect at every look at once with probability ``1 - alpha``.

    It inverts the mixture sequential probability ratio test, with a normal mixture over effects that makes the interval
    narrowest where the standard error is as planned. It is asymptotic, as the effect's own interval is; under
    `FEWEST_CLUSTERS` it is without bounds.

    Args:
        effect: of all that is known at the time of the look.
        planned_standard_error: what it is to be at the planned end. Fixed before the first look.
        alpha: the chance that any look finds what is not there.

    Raises:
        ValueError: a planned standard error that is not above 0, or an alpha outside (0, 1).

    Source: H. Robbins (1970), Ann. Math. Stat. 41:1397-1409; R. Johari, P. Koomen, L. Pekelis, D. Walsh (2022),
    Oper. Res. 70:1806-1821, doi:10.1287/opre.2021.2135; I. Waudby-Smith et al., arXiv:2103.06476 (asymptotic, and the
    choice of the mixture).
    """
    _check(alpha)
    if not planned_standard_error > 0.0:
        raise ValueError("expected a planned standard error above 0")
    if effect.clusters < FEWEST_CLUSTERS:
        return Look(value=effect.value, low=-np.inf, high=np.inf, stop=False)
    spread = (-2.0 * np.log(alpha) + np.log(1.0 - 2.0 * np.log(alpha))) * planned_standard_error**2
    variance = effect.standard_error**2
    both = variance + spread
    reach = float(np.sqrt(variance * both / spread * (np.log(both / variance) - 2.0 * np.log(alpha))))
    return _look(effect.value, reach)


def spending_bounds(fractions: Sequence[float], *, alpha: float = ALPHA) -> Floats:
    """Give the |z| at which each of the planned looks stops, by the O'Brien-Fleming-like spending function.

    Early looks may spend next to nothing, so the last is nearly that of a trial that is looked at once.

    Args:
        fractions: of the planned information at each look, growing, above 0 and at most 1; information goes with the
            number of clusters, or exactly with the inverse of the variance.
        alpha: spent over all looks, two-sided, when the last fraction is 1.

    Returns:
        Bounds, shape (n_looks,); 8 where a look may as good as never stop.

    Raises:
        ValueError: fractions that do not grow within (0, 1], or an alpha outside (0, 1).

    Source: K. K. G. Lan, D. L. DeMets (1983), Biometrika 70:659-663; the recursion: P. Armitage, C. K. McPherson,
    B. C. Rowe (1969), J. R. Stat. Soc. A 132:235-244.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    _check(alpha)
    times = np.asarray(fractions, dtype=np.float64)
    if times.ndim != 1 or not times.size or times[0] <= 0.0 or times[-1] > 1.0 or (np.diff(times) <= 0.0).any():
        raise ValueError("expected fractions of the planned information that grow, above 0 and at most 1")
    spent = 4.0 * (1.0 - ndtr(-ndtri(alpha / 4.0) / np.sqrt(times)))
    to_spend = np.diff(np.concatenate([[0.0], spent]))
    bounds: Floats = np.empty(times.size)
    # The score is a Brownian motion; its density is carried on over those paths that did not stop.
    grid, mass = np.zeros(1), np.ones(1)
    for look, (time, step, share) in enumerate(zip(times, np.diff(np.r_[0.0, times]), to_spend, strict=True)):
        deviation, root = float(np.sqrt(step)), float(np.sqrt(time))

        def too_much(
            z: float,
            *,
            at: float = root,
            by: float = deviation,
            of: float = float(share),
            points: Floats = grid,
            masses: Floats = mass,
        ) -> float:
            return 2.0 * float(masses @ ndtr((points - z * at) / by)) - of

        bounds[look] = _NEVER if too_much(_NEVER) >= 0.0 else brentq(too_much, 0.0, _NEVER, xtol=1e-10)
        edge = bounds[look] * root
        following = np.linspace(-edge, edge, _GRID)
        distances = (following[:, np.newaxis] - grid) / deviation
        density = np.exp(-0.5 * distances**2) @ mass / (deviation * np.sqrt(2.0 * np.pi))
        grid, mass = following, density * _simpson(following[1] - following[0])
    return bounds


def planned_look(effect: Effect, bound: float) -> Look:
    """Give what a planned look finds: the repeated interval, and whether the bound is passed.

    Args:
        effect: of all that is known at the look.
        bound: of this look, from `spending_bounds`.

    Source: C. Jennison, B. W. Turnbull (1989), J. R. Stat. Soc. B 51:305-361 (repeated confidence intervals).
    """
    return _look(effect.value, bound * effect.standard_error)


def _look(value: float, reach: float) -> Look:
    return Look(value=value, low=value - reach, high=value + reach, stop=abs(value) > reach)


def _check(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError("expected an alpha between 0 and 1")


def _simpson(width: float) -> Floats:
    weights = np.full(_GRID, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (width / 3.0)
