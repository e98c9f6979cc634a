"""P-values of many tests at once, corrected: for any false finding at all, or for their share among findings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deployr_core.bootstrap import Floats


def holm(p_values: Floats) -> Floats:
    """Give p-values under which the chance of even one false finding among all tests stays what it says.

    Args:
        p_values: each from 0 to 1, shape (n_tests,); NaN where nothing was tested, which stays NaN and does not count.

    Source: Holm (1979), Scand. J. Statist. 6:65-70.
    """
    return _stepwise(p_values, lambda count: np.arange(count, 0, -1, dtype=np.float64), down=True)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Give q-values: of the tests at or below one, that share is expected to be false findings.

    It holds where tests are independent or rise together, as those of features that are counted in the same rows do.

    Args:
        p_values: as for `holm`.

    Source: Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57:289-300, doi:10.1111/j.2517-6161.1995.tb02031.x;
    Benjamini and Yekutieli (2001), Ann. Statist. 29:1165-1188, for tests that depend on each other.
    """
    return _stepwise(p_values, lambda count: count / np.arange(1, count + 1), down=False)


def _stepwise(p_values: Floats, factors: Callable[[int], Floats], *, down: bool) -> Floats:
    """Multiply p-values by the factors in ascending order, and keep that order: upwards the largest so far wins."""
    p_values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    scaled = p_values[order] * factors(order.size)
    kept = np.maximum.accumulate(scaled) if down else np.minimum.accumulate(scaled[::-1])[::-1]
    corrected: Floats = np.full(p_values.shape, np.nan)
    corrected[order] = np.minimum(kept, 1.0)
    return corrected
