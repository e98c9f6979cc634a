"""Puts the audit together: the folder, and the server that it is sent on to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployr_serve.adapters.audit_folder import AuditFolder
from deployr_serve.audit_settings import AuditSettings
from deployr_serve.core.ports import Clock

if TYPE_CHECKING:
    from deployr_serve.adapters.audit_feed import AuditFeed
    from deployr_serve.adapters.http import Transport


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """Where records go; ``feed``: None keeps them here alone."""

    folder: AuditFolder
    feed: AuditFeed | None


def audit_of(
    settings: AuditSettings, *, site: str, environment: str, clock: Clock, transport: Transport | None
) -> Audit | None:
    """Put it together; None where no audit is kept. Without a ``transport`` nothing is sent on."""
    if settings.folder is None:
        return None
    folder = AuditFolder(settings.folder, site=site, environment=environment, clock=clock)
    feed = None
    if settings.fhir_base is not None and transport is not None:
        # Command lines send nothing on, and need nothing that speaks HTTP.
        from deployr_serve.adapters.audit_feed import AuditFeed

        feed = AuditFeed(folder, base=settings.fhir_base, token=settings.token, transport=transport, clock=clock)
    return Audit(folder=folder, feed=feed)
