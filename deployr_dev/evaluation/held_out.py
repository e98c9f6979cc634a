"""The evaluation of a trained bundle's held-out rows, with the groups of people that the extract can tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import nan
from typing import Protocol

import numpy as np

from deployr_core.codes import Code
from deployr_core.facts import Demographics
from deployr_core.groups import Strings, age_bands
from deployr_core.outputs import Target
from deployr_dev.cohorts.rows import IndexRow
from deployr_dev.evaluation.measuring import evaluate
from deployr_dev.evaluation.plain_measuring import evaluate_plain
from deployr_dev.evaluation.plain_records import PlainEvaluation
from deployr_dev.evaluation.records import Evaluation
from deployr_dev.trained import HeldOutPrediction, TrainedBundle

_RACES = {
    "1002-5": "American Indian",
    "2028-9": "Asian",
    "2054-5": "Black",
    "2076-8": "Pacific Islander",
    "2106-3": "White",
}
_ETHNICITIES = {"2135-2": "Hispanic", "2186-5": "Not Hispanic"}


class PeopleSource(Protocol):
    """What is needed of an extract: who the held-out patients are."""

    def demographics(self, person_ids: Collection[int]) -> Mapping[int, Demographics]:
        """Give who these persons are, by their ids."""


def evaluate_held_out(trained: TrainedBundle, extract: PeopleSource, *, seed: int) -> Evaluation | PlainEvaluation:
    """Measure what the bundle gave for the rows that it never saw, also by age, sex, race and ethnicity."""
    rows = trained.predictions
    subgroups = groups_of_people(rows, extract)
    outputs, labels = trained.manifest.task.outputs, np.array([row.label for row in rows])
    answers = np.array([row.outputs for row in rows])
    patients = np.array([row.person_id for row in rows], dtype=np.int64)
    available, rng = np.array([row.features_present for row in rows], dtype=np.int64), np.random.default_rng(seed)
    if outputs.target is Target.BINARY:
        return evaluate(labels, answers[:, 0], patients, rng=rng, subgroups=subgroups, available_features=available)
    return evaluate_plain(
        outputs, labels, answers, patients, rng=rng, subgroups=subgroups, available_features=available
    )


def groups_of_people(rows: Sequence[HeldOutPrediction | IndexRow], extract: PeopleSource) -> dict[str, Strings]:
    """Name each row's group by ``sex``, ``age``, ``race`` and ``ethnicity``, shape (n_rows,) each.

    Who has several races counts as ``Several``; a code that is no OMB category, as recorded under that code.
    """
    people = extract.demographics({row.person_id for row in rows})
    whose = [people[row.person_id] for row in rows]
    ages = [
        float(max(who.birth_date.age_in_years(row.index_time), 0)) if who.birth_date else nan
        for row, who in zip(rows, whose, strict=True)
    ]
    return {
        "sex": np.array([_sex(who) for who in whose]),
        "age": age_bands(np.array(ages)),
        "race": np.array([_category(who.races, _RACES) for who in whose]),
        "ethnicity": np.array([_category(who.ethnicities, _ETHNICITIES) for who in whose]),
    }


def _sex(who: Demographics) -> str:
    return "" if who.sex == "unknown" else str(who.sex)


def _category(codes: tuple[Code, ...], names: dict[str, str]) -> str:
    if len(codes) > 1:
        return "Several"
    return "".join(names.get(code.value, code.value) for code in codes)
