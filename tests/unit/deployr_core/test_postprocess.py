from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.postprocess import (
    ScoreUnusable,
    checked_number,
    checked_probability,
    packed_alert,
    percent,
    unpacked_alert,
    written,
)

NO_NUMBERS: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    np.float64(0.5),
    np.float32(0.5),
    np.array(0.5),
    True,
    1,
    "0.5",
    None,
)


@pytest.mark.parametrize("score", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("check", [checked_number, checked_probability, percent, written])
def test_what_is_no_number_of_ours_goes_nowhere(check: Any, score: Any) -> None:
    with pytest.raises(ScoreUnusable):
        check(score)


@pytest.mark.parametrize("score", [*NO_NUMBERS, 1.0000001, -1e-300], ids=repr)
def test_what_is_no_probability_is_not_packed(score: Any) -> None:
    with pytest.raises(ScoreUnusable):
        packed_alert(score, alert=True)


@pytest.mark.parametrize("score", [0.0, 1.0, 5e-324, 0.5])
def test_a_probability_may_leave(score: float) -> None:
    assert checked_probability(score) == score
    assert percent(score) == 100 * score


@pytest.mark.parametrize(
    ("number", "decimals", "text"),
    [
        (0.0, 2, "0"),
        (12.5, 2, "12.5"),
        (0.125, 2, "0.12"),  # a true half, to the even digit
        (0.375, 2, "0.38"),
        (-0.001, 2, "0"),
        (100.0, 2, "100"),
        (100.0, 0, "100"),
        (1e22, 2, "1" + "0" * 22),
        (1e-300, 6, "0"),
        (0.0000005, 6, "0"),  # under the half, as a float
    ],
)
def test_a_number_is_written_without_exponent_and_trailing_zeros(number: float, decimals: int, text: str) -> None:
    assert written(number, decimals=decimals) == text


@pytest.mark.parametrize(
    ("score", "alert", "text"),
    [
        (0.873, True, "1.0873"),
        (0.873, False, "0.0873"),
        (0.05, False, "0.0050"),
        (0.0, False, "0.0000"),
        (0.0, True, "1.0000"),
        (1.0, True, "1.1000"),
        (1.0, False, "0.1000"),
        (0.9996, False, "0.1000"),
        (0.0004, True, "1.0000"),
    ],
)
def test_the_alert_stands_before_the_point_and_the_score_behind_it(score: float, alert: bool, text: str) -> None:
    assert packed_alert(score, alert=alert) == text


@given(thousandths=st.integers(0, 1000), alert=st.booleans())
def test_a_packed_alert_can_be_unpacked_even_from_a_number(thousandths: int, alert: bool) -> None:
    text = packed_alert(thousandths / 1000, alert=alert)
    assert unpacked_alert(text) == (alert, thousandths / 1000)
    assert unpacked_alert(str(float(text))) == (alert, thousandths / 1000)


@given(score=st.floats(0.0, 1.0), alert=st.booleans())
def test_a_packed_score_is_off_by_half_a_thousandth_at_most_and_its_alert_never(score: float, alert: bool) -> None:
    text = packed_alert(abs(score), alert=alert)
    shown, kept = unpacked_alert(text)
    assert shown is alert
    assert (float(text) >= 1.0) is alert
    assert abs(kept - score) <= 0.0005 + 1e-12


@pytest.mark.parametrize("packed", ["", "2.0100", "1.2000", "1.1001", "0.5", "1.08735", "-1.0873", "1,0873", "nan"])
def test_what_is_not_packed_is_not_unpacked(packed: str) -> None:
    with pytest.raises(ScoreUnusable):
        unpacked_alert(packed)
