"""Statistical process control with nothing but arithmetic: it runs in the function app, which has no SciPy.

Shares vary more from day to day than chance alone makes them: patients, wards and the EMR have good and bad days. So
limits are widened by what is seen between the days of a reference period, after Laney.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_MOVING_RANGE = 1.128
"""The mean range of two standard normal numbers."""
_RARE = 1e-18


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """``hits`` out of ``of``."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        """Give the share; there must be at least one."""
        return self.hits / self.of


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """How a share was. ``spread``: by how much it varies more than chance makes it; Laney's sigma z, at least 1."""

    mean: float
    spread: float
    of: int


def reference_of(days: Sequence[Counted]) -> Reference:
    """Fit a reference period.

    The mean has half a hit added, so that a period without any does not make the first one impossible.

    Args:
        days: in order of time, at least one of at least one.

    Source: D. B. Laney (2002), Improved control charts for attributes, Quality Engineering 14:531-537,
    doi:10.1081/QEN-120003555.
    """
    days = [day for day in days if day.of]
    of = sum(day.of for day in days)
    if not of:
        raise ValueError("expected a reference period with at least one packet")
    mean = (sum(day.hits for day in days) + 0.5) / (of + 1)
    return Reference(mean=mean, spread=max(1.0, laney_sigma([standardized(day, mean) for day in days])), of=of)


def laney_sigma(z: Sequence[float]) -> float:
    """Give sigma z: the mean moving range of standardized shares, over that of standard normal numbers; 0 of one."""
    if len(z) < 2:
        return 0.0
    return sum(abs(after - before) for before, after in pairwise(z)) / (len(z) - 1) / _MOVING_RANGE


def standardized(day: Counted, mean: float) -> float:
    """Give a share in standard errors from the mean."""
    return (day.share - mean) / math.sqrt(mean * (1 - mean) / day.of)


def p_prime_limits(reference: Reference, of: int, *, width: float = 3.0) -> tuple[float, float]:
    """Give the limits of a p'-chart for a share out of so many, within 0 and 1."""
    reach = width * math.sqrt(reference.mean * (1 - reference.mean) / of) * reference.spread
    return max(0.0, reference.mean - reach), min(1.0, reference.mean + reach)


def chance_of_so_many(counted: Counted, reference: Reference) -> float:
    """Give how rarely so many hits, or more, come out of so many by chance.

    Limits of three standard errors are far off for rare events, so it is the binomial's own tail. Where shares vary
    more than chance makes them, packets are worth only 1 / spread² of one each.
    """
    worth = reference.spread**2
    return binomial_tail(math.floor(counted.hits / worth), math.ceil(counted.of / worth), reference.mean)


def binomial_tail(hits: int, of: int, share: float) -> float:
    """Give the chance of at least so many hits."""
    if hits <= 0:
        return 1.0
    if share <= 0.0 or hits > of:
        return 0.0
    if share >= 1.0:
        return 1.0
    if hits <= of * share:
        return max(0.0, 1.0 - binomial_tail(of - hits + 1, of, 1.0 - share))
    odds = share / (1.0 - share)
    first = (
        math.lgamma(of + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(of - hits + 1)
        + hits * math.log(share)
        + (of - hits) * math.log1p(-share)
    )
    return _summed(first, lambda k: (of - k) / (k + 1) * odds, hits, of)


def poisson_tail(count: int, mean: float) -> float:
    """Give the chance of at least so many."""
    if count <= 0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    if count <= mean:
        return 1.0 - poisson_head(count - 1, mean)
    return _summed(_log_poisson(count, mean), lambda k: mean / (k + 1), count, None)


def poisson_head(count: int, mean: float) -> float:
    """Give the chance of at most so many."""
    if count < 0:
        return 0.0
    if mean <= 0.0:
        return 1.0
    if count > mean:
        return 1.0 - poisson_tail(count + 1, mean)
    # Downwards from the largest term, each is a smaller share of the one above it.
    term = total = 1.0
    for k in range(count, 0, -1):
        term *= k / mean
        total += term
        if term < total * _RARE:
            break
    return min(1.0, math.exp(_log_poisson(count, mean)) * total)


def smoothed(z: Sequence[float], *, weight: float) -> Iterator[tuple[float, float]]:
    """Give after each number the exponentially weighted mean of all, from 0, and its standard error under no change.

    Source: S. W. Roberts (1959), Technometrics 1:239-250; the run lengths of limits: J. M. Lucas and M. S. Saccucci
    (1990), Technometrics 32:1-12, doi:10.1080/00401706.1990.10484583.
    """
    mean = 0.0
    for place, each in enumerate(z, start=1):
        mean += weight * (each - mean)
        yield mean, math.sqrt(weight / (2 - weight) * (1 - (1 - weight) ** (2 * place)))


def steadied(day: Counted, mean: float) -> float:
    """Give a share's distance from the mean in standard errors, on a scale where rare ones are nearly normal too.

    Source: M. F. Freeman and J. W. Tukey (1950), Ann. Math. Statist. 21:607-611; F. J. Anscombe (1948), Biometrika
    35:246-254, for the constants.
    """
    angle = math.asin(math.sqrt((day.hits + 0.375) / (day.of + 0.75)))
    return 2.0 * math.sqrt(day.of + 0.5) * (angle - math.asin(math.sqrt(mean)))


def _log_poisson(count: int, mean: float) -> float:
    return count * math.log(mean) - mean - math.lgamma(count + 1)


def _summed(log_first: float, ratio: Callable[[int], float], start: int, end: int | None) -> float:
    """Sum terms that fall from the first one on; ``ratio``: of the term after ``k`` to that of ``k``."""
    term = total = 1.0
    k = start
    while (end is None or k < end) and term > total * _RARE:
        term *= ratio(k)
        total += term
        k += 1
    return min(1.0, math.exp(log_first) * total)
