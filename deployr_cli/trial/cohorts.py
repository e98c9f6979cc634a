"""Who the orders were of: the cohorts of the paper's table 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from deployr_cli.demo.events import OrderSigned
from deployr_core.facts import Demographics, Sex

_WHITE, _BLACK, _ASIAN = "2106-3", "2054-5", "2028-9"
"""OMB categories. Source: http://hl7.org/fhir/us/core/ValueSet-omb-race-category.html."""


class CohortFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One cohort. ``mean_age``: in years at a patient's first order; shares are of patients; None of nobody."""

    orders: int
    patients: int
    mean_age: float | None
    female: float | None
    white: float | None
    black: float | None
    asian: float | None


def cohort_figures(
    events: Collection[OrderSigned], *, persons: Mapping[str, int], people: Mapping[int, Demographics]
) -> CohortFigures:
    """Describe the patients of some orders, given as they were signed.

    Args:
        events: the orders.
        persons: the extract's person id of each FHIR patient id.
        people: who these persons are.
    """
    first: dict[str, OrderSigned] = {}
    for event in events:
        first.setdefault(event.patient_id, event)
    whose = [(people[persons[patient]], event.signed_at) for patient, event in first.items()]
    ages = [float(who.birth_date.age_in_years(at)) for who, at in whose if who.birth_date is not None]
    races = Counter(code.value for who, _ in whose for code in who.races)

    def share(count: int) -> float | None:
        return count / len(whose) if whose else None

    return CohortFigures(
        orders=len(events),
        patients=len(first),
        mean_age=_mean(ages),
        female=share(sum(who.sex is Sex.FEMALE for who, _ in whose)),
        white=share(races[_WHITE]),
        black=share(races[_BLACK]),
        asian=share(races[_ASIAN]),
    )


def _mean(values: Iterable[float]) -> float | None:
    held = list(values)
    return sum(held) / len(held) if held else None
