"""CDS Hooks discovery: which services there are, and what each asks to be handed over. Pure.

A model of orders is asked when an order is chosen or signed, any other when the chart is opened or the patient leaves.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#discovery [seen].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Hook(StrEnum):
    """The hooks that are served, version 1.0 of each. Source: https://cds-hooks.org/hooks/ [seen]."""

    PATIENT_VIEW = "patient-view"
    ORDER_SELECT = "order-select"
    ORDER_SIGN = "order-sign"
    ENCOUNTER_DISCHARGE = "encounter-discharge"


WITH_ORDERS = frozenset({Hook.ORDER_SELECT, Hook.ORDER_SIGN})
USAGE = (
    "Whatever is not handed over as prefetch is read from the FHIR server with the access token of the request, or "
    "without one with the service's own registration. The FHIR server must be the one that is configured."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One model as it can be asked.

    ``panels``: LOINC codes of the orders that it is for; empty: it is for no order; None: its bundle may not be used,
    so that nobody knows. ``templates``: prefetch by the name of the search.
    """

    model_id: str
    label: str
    panels: tuple[str, ...] | None
    templates: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One model of a service: the orders it is for, and under which key each of its searches is handed over."""

    model_id: str
    panels: frozenset[str]
    search_of_key: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsService:
    """One service on one hook. ``is_listed``: false while no bundle of its models may be used."""

    service_id: str
    hook: Hook
    title: str
    description: str
    asked: tuple[Asked, ...]
    prefetch: Mapping[str, str]
    is_listed: bool

    @property
    def model_ids(self) -> frozenset[str]:
        """Give the models that are asked."""
        return frozenset(each.model_id for each in self.asked)


def services_of(offers: Iterable[Offer], groups: Mapping[str, tuple[str, ...]]) -> dict[str, CdsService]:
    """Give the services by id: ``MODEL-HOOK`` for each model, ``GROUP-HOOK`` for each group; no group is called as a
    model is."""
    by_model = {offer.model_id: offer for offer in offers}
    members = {model: (model,) for model in by_model} | dict(groups)
    services = {}
    for name, models in members.items():
        for hook in Hook:
            suited = tuple(by_model[model] for model in models if model in by_model and _suits(by_model[model], hook))
            if suited:
                service = _service(name, hook, suited)
                services[service.service_id] = service
    return services


def render_discovery(services: Iterable[CdsService]) -> bytes:
    """Render what ``GET /cds-services`` answers."""
    return msgspec.json.encode(
        {
            "services": [
                {
                    "hook": service.hook,
                    "title": service.title,
                    "description": service.description,
                    "id": service.service_id,
                    "prefetch": service.prefetch,
                    "usageRequirements": USAGE,
                }
                for service in services
                if service.is_listed
            ]
        }
    )


def _suits(offer: Offer, hook: Hook) -> bool:
    return offer.panels is None or bool(offer.panels) == (hook in WITH_ORDERS)


def _service(name: str, hook: Hook, offers: tuple[Offer, ...]) -> CdsService:
    usable = [offer for offer in offers if offer.panels is not None]
    return CdsService(
        service_id=f"{name}-{hook}",
        hook=hook,
        title=name,
        description="; ".join(dict.fromkeys(offer.label for offer in usable)) or name,
        asked=tuple(
            Asked(
                model_id=offer.model_id,
                panels=frozenset(offer.panels or ()),
                search_of_key={_key(offer, search, offers): search for search in offer.templates},
            )
            for offer in offers
        ),
        prefetch={
            _key(offer, search, offers): template for offer in offers for search, template in offer.templates.items()
        },
        is_listed=bool(usable),
    )


def _key(offer: Offer, search: str, offers: tuple[Offer, ...]) -> str:
    """Give the key of a search: its name where all who need it need the same, so that it is handed over once."""
    asked = defaultdict(set)
    for each in offers:
        if search in each.templates:
            asked[search].add(each.templates[search])
    return search if len(asked[search]) == 1 else f"{offer.model_id}-{search}"
