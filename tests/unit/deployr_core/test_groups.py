"""How groups of people are named, and which are too small to speak of."""

from __future__ import annotations

import numpy as np
import pytest

from deployr_core.groups import NOT_RECORDED, age_bands, too_small


def test_ages_fall_into_bands_whose_start_belongs_to_them() -> None:
    ages = np.array([0, 17.9, 18, 39, 40, 64, 65, 79.9, 80, 110, np.nan])
    assert age_bands(ages).tolist() == [
        *["0 to 17"] * 2,
        *["18 to 39"] * 2,
        *["40 to 64"] * 2,
        *["65 to 79"] * 2,
        *["80 and over"] * 2,
        NOT_RECORDED,
    ]
    with pytest.raises(ValueError, match="no age below 0"):
        age_bands(np.array([-1.0]))


@pytest.mark.parametrize(
    ("rows", "per_patient", "positives", "why"),
    [
        pytest.param(20, 2, 10, None, id="large enough"),
        pytest.param(19, 1, 9, "under 20 rows", id="too few rows"),
        pytest.param(27, 3, 9, "under 10 patients", id="too few patients"),
        pytest.param(40, 1, 4, "under 5 rows with the outcome", id="too few with the outcome"),
        pytest.param(40, 1, 36, "under 5 rows without the outcome", id="too few without"),
    ],
)
def test_a_group_is_too_small_below_its_limits(rows: int, per_patient: int, positives: int, why: str | None) -> None:
    labels = (np.arange(rows) < positives).astype(np.float64)
    assert too_small(np.arange(rows) // per_patient, labels=labels) == why


def test_the_outcome_is_not_asked_about_where_there_is_none() -> None:
    assert too_small(np.arange(40)) is None
