"""What the label rules need from the EMR, as a shape; the FHIR adapter fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from deployr_core.codes import Code
from deployr_core.facts import Diagnosis, Lab, Order
from deployr_core.label_rules import FhirPathSearch
from deployr_core.visit_labels import Death, Stay
from deployr_serve.core.ports import Budget


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeNeeds:
    """What label rules must know of one patient: of whichever of these is there.

    ``order_ids``: how these orders stand. ``codes``: results of these. ``stays``: visits. ``diagnoses``: what was
    recorded. Of these three what was there at or after ``since``. ``searches``: whole resources, whenever they are of.
    Who the patient is, whether alive and whether merged, is always looked up.
    """

    since: datetime
    order_ids: tuple[str, ...] = field(default=(), repr=False)
    codes: tuple[Code, ...] = ()
    stays: bool = False
    diagnoses: bool = False
    searches: tuple[FhirPathSearch, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeFacts:
    """What has become of one patient.

    ``orders``: by order id; an order that the EMR no longer shows is absent. ``died_undated``: the patient is dead, and
    nobody says since when. ``is_merged``: the record was merged into another, and what is left in it is not the whole.
    ``resources``: by the search's key, the JSON of each.
    """

    labs: tuple[Lab, ...] = field(default=(), repr=False)
    orders: Mapping[str, Order] = field(default_factory=dict, repr=False)
    stays: tuple[Stay, ...] = field(default=(), repr=False)
    diagnoses: tuple[Diagnosis, ...] = field(default=(), repr=False)
    death: Death | None = field(default=None, repr=False)
    died_undated: bool = False
    is_merged: bool = False
    resources: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)


class OutcomeSource(Protocol):
    """Reads what label rules need."""

    async def outcomes(self, patient_id: str, needs: OutcomeNeeds, *, budget: Budget | None = None) -> OutcomeFacts:
        """Fetch what is needed, all of it at once; every piece is checked to be whole and about this patient.

        Raises:
            ServeError: as for `FactSource.fetch`.
        """
