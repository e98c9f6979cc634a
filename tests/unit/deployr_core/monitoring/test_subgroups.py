"""Whether a model does as well for some as for everybody: by hand, with small groups kept out and chance corrected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable
from deployr_core.groups import NOT_RECORDED
from deployr_core.metrics import auroc
from deployr_core.monitoring.subgroups import (
    Subgroup,
    Subgroups,
    SubgroupTable,
    TooSmall,
    binary_subgroups,
    other_subgroups,
)
from deployr_core.outputs import Outputs, Target


def rows(n: int = 1200, *, seed: int = 1) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(2, 4, n)
    return (rng.random(n) < scores).astype(np.float64), scores, np.arange(n) // 2


def grouped(properties: dict[str, Any], *, of: tuple[Any, Any, Any] | None = None, **more: Any) -> Subgroups:
    labels, scores, patients = of or rows()
    named = {name: np.array(names, dtype=np.str_) for name, names in properties.items()}
    return binary_subgroups(
        labels, scores, patients, named, **{"rng": np.random.default_rng(2), "resamples": 100, **more}
    )


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def named(table: SubgroupTable) -> dict[str, Subgroup]:
    return {group.name: group for group in table.groups}


SEX = np.where(np.arange(1200) // 2 % 3 == 0, "female", "male")


def test_a_groups_figures_are_those_of_its_rows_alone() -> None:
    labels, scores, _ = rows()
    found = named(grouped({"sex": SEX}, threshold=0.4).tables[0])
    female = found["female"]
    inside, alert = SEX == "female", scores >= 0.4
    assert (female.rows, female.patients) == (400, 200)
    assert not isinstance(female.figures, TooSmall)
    assert value(female.figures["auroc"]) == pytest.approx(auroc(labels[inside], scores[inside]))
    assert value(female.figures["sensitivity"]) == pytest.approx(alert[inside & (labels == 1)].mean())
    assert value(female.figures["prevalence"]) == labels[inside].mean()


def test_a_difference_is_the_group_less_everybody() -> None:
    labels, scores, _ = rows()
    found = named(grouped({"sex": SEX}).tables[0])["female"].differences["auroc"].difference
    inside = SEX == "female"
    assert found.value == pytest.approx(auroc(labels[inside], scores[inside]) - auroc(labels, scores))
    assert found.low < found.value < found.high


def test_a_group_whose_scores_are_wrong_is_found_and_one_by_chance_is_not() -> None:
    labels, scores, patients = rows(8000)
    group = np.array([f"ward {number}" for number in range(20)])[patients % 20]
    rng = np.random.default_rng(3)
    wrong = group == "ward 5"
    labels[wrong] = (rng.random(int(wrong.sum())) < np.minimum(1.0, scores[wrong] + 0.25)).astype(np.float64)
    found = grouped({"ward": group}, of=(labels, scores, patients))
    judged = {group.name: group.differences["calibration_in_the_large"].is_found for group in found.tables[0].groups}
    assert [name for name, is_found in judged.items() if is_found] == ["ward 5"]


def test_among_many_groups_that_are_all_alike_hardly_ever_is_one_found() -> None:
    """30 groups of 50 patients, two tests each, 20 times: uncorrected, each time about 3 findings would be false."""
    false = 0
    for seed in range(20):
        of = rows(3000, seed=seed)
        group = np.array([f"{number:02}" for number in range(30)])[of[2] % 30]
        found = grouped({"ward": group}, of=of, resamples=200, rng=np.random.default_rng(seed))
        false += any(each.is_found for own in found.tables[0].groups for each in own.differences.values())
    assert found.tests == 60
    assert false <= 4


def test_a_share_of_all_in_a_group_does_not_pass_for_certainty() -> None:
    """Five of five found among them, of everybody 8 in 10: five patients cannot tell that apart."""
    labels = np.r_[np.ones(5), np.zeros(35), np.tile([1.0, 0.0], 100)]
    scores = np.r_[np.full(5, 0.9), np.full(35, 0.1), np.tile([0.9, 0.1], 80), np.tile([0.2, 0.1], 20)]
    group = np.r_[np.full(40, "few"), np.full(200, "many")]
    found = named(grouped({"g": group}, of=(labels, scores, np.arange(240)), threshold=0.5).tables[0])["few"]
    assert not isinstance(found.figures, TooSmall)
    assert value(found.figures["sensitivity"]) == 1.0
    difference = found.differences["sensitivity"]
    assert not difference.is_found
    assert difference.difference.low < 0 < difference.difference.high


def test_crossed_properties_are_groups_of_their_own_and_unknown_where_one_is() -> None:
    age = np.where(np.arange(1200) // 2 % 2 == 0, "40 to 64", "")
    found = grouped({"sex": SEX, "age": age}, crossed=[("sex", "age")])
    assert [table.properties for table in found.tables] == [("sex",), ("age",), ("sex", "age")]
    assert [(group.name, group.rows) for group in found.tables[2].groups] == [
        ("female, 40 to 64", 200),
        ("male, 40 to 64", 400),
        (NOT_RECORDED, 600),
    ]


def test_a_small_group_has_no_figures_and_its_size_cannot_be_worked_out() -> None:
    names = np.full(1200, "a")
    names[:400], names[400:412] = "b", "rare"
    a, b, rare = grouped({"kind": names}).tables[0].groups
    assert rare.figures == TooSmall(why="under 20 rows")
    assert (rare.rows, rare.patients, dict(rare.differences)) == (None, None, {})
    # The next larger one's size is withheld too: all rows less the others would be the small one's.
    assert (b.rows, b.patients) == (None, None)
    assert not isinstance(b.figures, TooSmall)
    assert a.rows == 788


def test_everybody_in_one_group_is_no_different_from_everybody() -> None:
    found = grouped({"site": np.full(1200, "one")})
    difference = found.tables[0].groups[0].differences["auroc"]
    assert difference.difference.value == 0
    assert not difference.is_found
    assert found.tests == 0


def test_weights_count_in_groups_as_in_everybody() -> None:
    labels, scores, _ = rows()
    weights = np.random.default_rng(4).uniform(0.5, 2, 1200)
    found = grouped({"sex": SEX}, weights=weights)
    female = named(found.tables[0])["female"].figures
    assert not isinstance(female, TooSmall)
    inside = SEX == "female"
    assert value(female["brier_score"]) == pytest.approx(
        np.average((scores - labels)[inside] ** 2, weights=weights[inside])
    )


def test_numbers_are_grouped_by_their_errors() -> None:
    rng = np.random.default_rng(5)
    observed = rng.normal(12, 2, 1200)
    predicted = observed + rng.normal(size=1200) + np.where(SEX == "female", 1.0, 0.0)
    outputs = Outputs(target=Target.REGRESSION, names=("hemoglobin",), headline="hemoglobin", unit="g/dL")
    found = other_subgroups(
        outputs, observed, predicted[:, np.newaxis], np.arange(1200), {"sex": SEX}, rng=rng, resamples=100
    )
    female = named(found.tables[0])["female"]
    assert female.differences["bias"].is_found
    assert female.differences["bias"].difference.value == pytest.approx(2 / 3, abs=0.1)


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(ValueError, match="properties to cross"):
        grouped({"sex": SEX}, crossed=[("sex", "age")])
    with pytest.raises(ValueError, match="one sex per row"):
        grouped({"sex": SEX[:3]})
    none = np.zeros(0)
    with pytest.raises(NotMeasurable, match="a label"):
        grouped({}, of=(none, none, none.astype(np.int64)))
