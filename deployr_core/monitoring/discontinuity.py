"""What showing changed where nobody was assigned by chance: those just above the threshold against those just below.

A deployment that shows its advisory from a threshold on treats two scores that hardly differ in two ways. The jump of
the outcome at the threshold is the effect of crossing it, for inferences with scores near it and for no others. Outcome
and score must otherwise go on smoothly there; that nothing else starts at the same score is for people to judge.

A line is fitted on each side, nearby rows counting more (triangular kernel). A line that bends is biased; so the
interval is that of a parabola in the same window, which is the line's estimate with its estimated bias taken away.

Source: S. Calonico, M. D. Cattaneo, R. Titiunik (2014), Econometrica 82:2295-2326, doi:10.3982/ECTA11757 (with one
bandwidth for estimate and bias, remark 7); G. Imbens, K. Kalyanaraman (2012), Rev. Econ. Stud. 79:933-959,
doi:10.1093/restud/rdr043 (bandwidth); J. McCrary (2008), J. Econometrics 142:698-714 (density).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats, NotMeasurable, NotMeasured
from deployr_core.monitoring.clustered import Effect, clustered_fit

FEWEST_ROWS = 50
FEWEST_SCORES = 10
"""On each side within the bandwidth; with fewer distinct scores a parabola follows single ones."""

_EDGE_CONSTANT = 3.4375
"""Of the triangular kernel at an edge, in the bandwidth of Imbens and Kalyanaraman, section 4.1."""
_PILOT, _PILOT_CURVATURE, _REGULARISATION = 1.84, 3.56, 2160.0
"""The pilot bandwidths and the regularisation of the same section, steps 1 to 3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DensityCheck:
    """How many rows lie just above the threshold for one just below. ``p_value``: of their being as dense.

    A small one says that scores come to lie on one side on purpose, or that something else changes there.
    """

    ratio: float
    p_value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Discontinuity:
    """The jump at one threshold. ``value``: of the lines; ``robust``: less its bias, and the interval to report.

    ``bandwidth``: how far from the threshold scores count, in units of the score. ``below`` and ``above``: rows within
    it. ``left_limit``: the outcome just below the threshold, of the line. ``slope_below`` and ``slope_above``: of the
    lines, outcome for one unit of the score.
    """

    threshold: float
    value: float
    robust: Effect
    left_limit: float
    slope_below: float
    slope_above: float
    bandwidth: float
    below: int
    above: int
    density: DensityCheck | NotMeasured


def discontinuity(
    scores: Floats,
    outcomes: Floats,
    patients: NDArray[np.int64],
    *,
    threshold: float,
    bandwidth: float | None = None,
) -> Discontinuity:
    """Give the jump of the outcome at the threshold; a score at the threshold is above it.

    Args:
        scores: of one model version, which showed at one threshold, shape (n_rows,).
        outcomes: any numbers, shape (n_rows,).
        patients: whose rows are alike, shape (n_rows,).
        threshold: in units of the score.
        bandwidth: how far from the threshold scores count; None is the plug-in of Imbens and Kalyanaraman, which
            makes the line's mean squared error least.

    Raises:
        NotMeasurable: too few rows, scores or patients near the threshold, or outcomes that do not differ.
        ValueError: shapes differ, or a number is not finite, or a bandwidth that is not above 0.
    """
    scores, outcomes = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    patients = np.asarray(patients)
    if not scores.shape == outcomes.shape == patients.shape or scores.ndim != 1:
        raise ValueError("expected an outcome and a patient for each score")
    if not (np.isfinite(scores).all() and np.isfinite(outcomes).all()):
        raise ValueError("expected finite scores and outcomes")
    if bandwidth is not None and not bandwidth > 0.0:
        raise ValueError("expected a bandwidth above 0")
    distance = scores - threshold
    width = _plug_in_bandwidth(distance, outcomes) if bandwidth is None else bandwidth
    near = np.abs(distance) < width
    _check_enough(distance[near])
    weights = 1.0 - np.abs(distance[near]) / width
    shares = distance[near] / width
    line, parabola = (
        clustered_fit(_sides(shares, degree), outcomes[near], patients[near], weights=weights) for degree in (1, 2)
    )
    return Discontinuity(
        threshold=threshold,
        value=float(line.coefficients[1]),
        robust=parabola.contrast(np.eye(6)[1]),
        left_limit=float(line.coefficients[0]),
        slope_below=float(line.coefficients[2] / width),
        slope_above=float((line.coefficients[2] + line.coefficients[3]) / width),
        bandwidth=float(width),
        below=int((shares < 0.0).sum()),
        above=int((shares >= 0.0).sum()),
        density=_density_check(distance, patients),
    )


def discontinuities(
    scores: Floats,
    outcomes: Floats,
    patients: NDArray[np.int64],
    versions: Sequence[str],
    thresholds: Floats,
) -> dict[tuple[str, float], Discontinuity | NotMeasured]:
    """Give the jump for each model version and threshold that there was: scores of two versions do not compare.

    Args:
        scores, outcomes, patients: as for `discontinuity`.
        versions: of the model, one for each row.
        thresholds: in force at each row, shape (n_rows,).

    Raises:
        ValueError: as for `discontinuity`, or not one version and threshold for each row.
    """
    names, version = np.unique(np.asarray(versions, dtype=np.str_), return_inverse=True)
    if version.shape != np.shape(scores) or np.shape(thresholds) != np.shape(scores):
        raise ValueError("expected one version and one threshold for each row")
    found: dict[tuple[str, float], Discontinuity | NotMeasured] = {}
    for number, name in enumerate(names.tolist()):
        for threshold in np.unique(thresholds[version == number]).tolist():
            rows = (version == number) & (thresholds == threshold)
            try:
                found[name, threshold] = discontinuity(
                    scores[rows], outcomes[rows], patients[rows], threshold=threshold
                )
            except NotMeasurable as lacking:
                found[name, threshold] = NotMeasured(why=str(lacking))
    return found


def _sides(shares: Floats, degree: int) -> Floats:
    """Give the columns of a polynomial on each side: constant, jump, then each power, and its change past 0."""
    above = (shares >= 0.0).astype(np.float64)
    powers = [shares**power for power in range(1, degree + 1)]
    return np.column_stack([np.ones_like(shares), above, *powers, *(each * above for each in powers)])


def _check_enough(distance: Floats) -> None:
    for side, name in ((distance < 0.0, "below"), (distance >= 0.0, "above")):
        if side.sum() < FEWEST_ROWS or np.unique(distance[side]).size < FEWEST_SCORES:
            raise NotMeasurable(
                f"expected at least {FEWEST_ROWS} rows with {FEWEST_SCORES} different scores just {name} the threshold"
            )


def _plug_in_bandwidth(distance: Floats, outcomes: Floats) -> float:
    """Give the bandwidth of least mean squared error, from pilots for density, noise and curvature at the threshold."""
    above = distance >= 0.0
    _check_enough(distance)
    rows = distance.size
    pilot = _PILOT * distance.std(ddof=1) * rows**-0.2
    window = [np.abs(distance) < pilot, above]
    right, left = window[0] & above, window[0] & ~above
    if right.sum() < FEWEST_SCORES or left.sum() < FEWEST_SCORES:
        raise NotMeasurable("expected more rows near the threshold")
    density = (right.sum() + left.sum()) / (2.0 * rows * pilot)
    noise = {side: float(outcomes[within].var(ddof=1)) for side, within in ((True, right), (False, left))}
    if noise[True] + noise[False] == 0.0:
        raise NotMeasurable("expected outcomes that differ near the threshold")

    # Half of each side, nearest to the threshold, so that far scores do not bend the cubic.
    inner = np.where(above, distance <= np.median(distance[above]), distance >= np.median(distance[~above]))
    cubic = np.column_stack([np.ones_like(distance), above, distance, distance**2, distance**3])[inner]
    third = 6.0 * float(np.linalg.lstsq(cubic, outcomes[inner], rcond=None)[0][4])
    curvature, regularisation = {}, 0.0
    for side in (True, False):
        of_side = above == side
        reach = float(np.abs(distance[of_side]).max())
        width = reach
        if third != 0.0:
            suggested = (max(noise[side], 1e-12) / (density * third**2)) ** (1 / 7)
            width = min(_PILOT_CURVATURE * suggested * of_side.sum() ** (-1 / 7), reach)
        within = of_side & (np.abs(distance) <= width)
        if within.sum() < FEWEST_SCORES:
            raise NotMeasurable("expected more rows near the threshold")
        parabola = np.column_stack([np.ones(within.sum()), distance[within], distance[within] ** 2])
        curvature[side] = 2.0 * float(np.linalg.lstsq(parabola, outcomes[within], rcond=None)[0][2])
        regularisation += _REGULARISATION * noise[side] / (within.sum() * width**4)
    bend = (curvature[True] - curvature[False]) ** 2 + regularisation
    return float(_EDGE_CONSTANT * ((noise[True] + noise[False]) / (density * bend)) ** 0.2 * rows**-0.2)


def _density_check(distance: Floats, patients: NDArray[np.int64]) -> DensityCheck | NotMeasured:
    """Compare the density on both sides, each estimated at its edge by a line, with the variance between patients."""
    from scipy.special import ndtr

    # Past the lowest or highest score the density falls to 0, which is no jump of interest.
    width = min(_PILOT * distance.std(ddof=1) * distance.size**-0.2, -distance.min(), distance.max())
    share = np.abs(distance) / width
    # The kernel that fits a line to the density at an edge: it integrates to 1 and its first moment is 0.
    edge = np.where(share < 1.0, 6.0 * (1.0 - 2.0 * share) * (1.0 - share), 0.0) / width
    _, patient = np.unique(patients, return_inverse=True)
    sides = np.column_stack([np.bincount(patient, weights=edge * side) for side in (distance < 0.0, distance >= 0.0)])
    below, above = sides.sum(axis=0) / distance.size
    if not (below > 0.0 and above > 0.0):
        return NotMeasured(why="expected more rows next to the threshold")
    # The logarithm of the ratio, linearised: its variance is that of the sum over patients.
    influence = sides[:, 1] / above - sides[:, 0] / below
    error = float(np.sqrt((influence**2).sum())) / distance.size
    ratio = float(above / below)
    return DensityCheck(ratio=ratio, p_value=float(2.0 * ndtr(-abs(np.log(ratio)) / error)))
