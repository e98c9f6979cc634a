"""Puts CDS Hooks together: settings and bundles to services, and to who may call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployr_serve.adapters.caller_jwt import CdsCallers, KeySets, KeySetUnusable
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.fhir_page import VERSIONS
from deployr_serve.adapters.fhir_prefetch import prefetch_templates
from deployr_serve.adapters.http import Transport
from deployr_serve.cds_settings import CdsSettings
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Clock, Models, Records
from deployr_serve.triggers.cds_services import CdsService, Offer, services_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsAccess:
    """The services by id, and how callers are let in.

    ``callers``: None lets anybody in, which only the dev profile does. ``public_base``: what callers call us by; None
    only with them. ``machine``: the clock of tokens and of what expires, which no replay turns back.
    """

    services: Mapping[str, CdsService]
    callers: CdsCallers | None
    public_base: str | None
    fhir_base: str
    machine: Clock


def cds_access(
    settings: CdsSettings,
    *,
    models: Models,
    policies: Policies,
    records: Records,
    transport: Transport,
    fhir_base: str,
    fhir_version: str,
) -> CdsAccess:
    """Put it together. Pinned keys are read here, others on first use.

    Raises:
        SettingsInvalid: a pinned key set cannot be used.
    """
    machine = SystemClock()
    callers = None
    if settings.clients is not None:
        try:
            keys = KeySets(settings.clients, transport=transport, clock=machine)
        except (KeySetUnusable, OSError) as error:
            expected = str(error) if isinstance(error, KeySetUnusable) else "expected each jwks_file to be readable"
            raise SettingsInvalid(f"settings: DEPLOYR_CDS_CLIENTS: {expected}") from None
        callers = CdsCallers(settings.clients, keys=keys, records=records, clock=machine)
    offers = [_offer(model, reason, models, fhir_version=fhir_version) for model, reason in models.deployed().items()]
    groups = {name for policy in policies.declared.values() for name in policy.groups}
    return CdsAccess(
        services=services_of(offers, {name: policies.in_group(name) for name in sorted(groups)}),
        callers=callers,
        public_base=settings.public_base,
        fhir_base=fhir_base,
        machine=machine,
    )


def _offer(model_id: str, unavailable: str | None, models: Models, *, fhir_version: str) -> Offer:
    if unavailable is not None:
        return Offer(model_id=model_id, label=model_id, panels=None, templates={})
    bundle = models.bundle(model_id)
    task = bundle.manifest.task
    templates = prefetch_templates(bundle.spec, version=VERSIONS[fhir_version])
    return Offer(model_id=model_id, label=task.label, panels=task.panels, templates=templates)
