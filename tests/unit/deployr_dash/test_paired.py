"""A shadow beside its champion, from the extract's rows: who is paired with whom, and what is left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployr_core.registry.comparison import Comparison, Rows
from deployr_dash.paired import COLUMNS, NotPaired, live_comparison

NOW = datetime(2031, 4, 1, tzinfo=UTC)
SHADOW = "hematocrit-bbbbbbbbbbbb"


def a_row(number: int, **changes: Any) -> dict[str, Any]:
    """Give a champion's packet: of a patient of its own, with an outcome every other time, scored as it came."""
    positive = float(number % 2)
    return {
        **dict.fromkeys(COLUMNS),
        "packet_id": f"p{number:03}",
        "version": "1",
        "bundle_sha256": "a" * 64,
        "received_at": datetime(2031, 3, 1, tzinfo=UTC) + timedelta(hours=number),
        "kind": "scored",
        "score": 0.3 + 0.4 * positive + 0.001 * number,
        "threshold": 0.6,
        "patient_code": number // 2,
        "label_kind": "observed",
        "label_value": positive,
        "label_ripe_at": datetime(2031, 3, 20, tzinfo=UTC),
        "sex": "female",
        **changes,
    }


def of_shadow(number: int, **changes: Any) -> dict[str, Any]:
    """Give the shadow's packet beside it: half of its score, so that the order of the rows is the same."""
    beside = a_row(number)
    own = {"packet_id": f"s{number:03}", "shadow_of": beside["packet_id"], "bundle_sha256": "b" * 64, "version": "2"}
    return {**beside, **own, "score": beside["score"] / 2, **changes}


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    made["patient_code"] = made["patient_code"].astype("Int64")
    for name in ("received_at", "label_ripe_at"):
        made[name] = pd.to_datetime(made[name], utc=True)
    return made


def compared(champion: list[dict[str, Any]], shadow: list[dict[str, Any]]) -> Comparison:
    return live_comparison(
        frame(champion),
        frame(shadow),
        names=("hematocrit", SHADOW),
        outcome="abnormal",
        now=NOW,
        rng=np.random.default_rng(0),
        resamples=100,
    )


EIGHT = [a_row(number) for number in range(8)]
THEIRS = [of_shadow(number) for number in range(8)]


def test_both_are_held_against_the_same_outcomes_of_the_same_requests():
    found = compared(EIGHT, THEIRS)

    assert (found.rows_are, found.rows, found.patients, found.positives) == (Rows.LIVE, 8, 4, 4)
    assert (found.champion.name, found.challenger.name, found.challenger.version) == ("hematocrit", SHADOW, "2")
    assert (found.threshold, found.unpaired_rows) == (0.6, 0)
    # All positives outscore all negatives in both; the Brier scores are means over the rows as they were made.
    scores, labels = np.array([row["score"] for row in EIGHT]), np.array([row["label_value"] for row in EIGHT])
    brier = found.figure("Brier score")
    assert brier.champion.value == pytest.approx(((scores - labels) ** 2).mean())
    assert brier.challenger.value == pytest.approx(((scores / 2 - labels) ** 2).mean())


def test_what_only_one_of_the_two_scored_is_counted_and_left_out():
    failed = of_shadow(2, kind="failed", score=None)

    found = compared(EIGHT, [*THEIRS[:2], failed, *THEIRS[4:]])

    # The third failed, and the fourth was skipped.
    assert (found.rows, found.unpaired_rows) == (6, 2)


def test_only_labels_that_can_change_no_more_count():
    early = [a_row(0, label_ripe_at=NOW + timedelta(hours=1)), a_row(1, label_kind="censored", label_value=None)]
    theirs = [
        of_shadow(0, label_ripe_at=NOW + timedelta(hours=1)),
        of_shadow(1, label_kind="censored", label_value=None),
    ]

    assert compared([*early, *EIGHT[2:]], [*theirs, *THEIRS[2:]]).rows == 6
    with pytest.raises(NotPaired, match="expected an outcome that is known for good of a request that both scored"):
        compared(early, theirs)


def test_a_label_of_either_packet_is_the_requests():
    unlabelled = a_row(0, label_kind=None, label_value=None)

    assert compared([unlabelled, *EIGHT[1:]], THEIRS).rows == 8


def test_only_the_bundle_that_the_champion_serves_now_counts():
    before = [a_row(number, bundle_sha256="c" * 64, version="0") for number in range(2)]

    found = compared([*before, *EIGHT[2:]], THEIRS)

    assert (found.rows, found.champion.bundle_sha256) == (6, "a" * 64)


def test_requests_of_before_there_was_a_shadow_are_nobodys_miss():
    found = compared(EIGHT, THEIRS[4:])

    assert (found.rows, found.unpaired_rows) == (4, 0)


def test_without_a_shadow_or_its_champion_nothing_is_compared():
    with pytest.raises(NotPaired, match=f"expected packets of {SHADOW}"):
        compared(EIGHT, [])
    with pytest.raises(NotPaired, match="are not here"):
        compared([a_row(20)], THEIRS)
    with pytest.raises(NotPaired, match="expected scores that are probabilities"):
        compared([a_row(number, value_unit="g/dL") for number in range(8)], THEIRS)
