"""The Functions that look after what is kept: the audit's gaps and its feed, and what has been kept for long enough."""

from __future__ import annotations

import logging
from datetime import timedelta

import azure.functions as func

from deployr_serve.audit_bootstrap import Audit
from deployr_serve.audit_settings import AuditSettings
from deployr_serve.core.audit import Act, of_operator
from deployr_serve.core.audit_gaps import fill_gaps
from deployr_serve.core.infer import Services
from deployr_serve.core.retention import Kept, purge

AUDIT_SCHEDULE = "*/30 * * * * *"
PURGE_SCHEDULE = "0 17 3 * * *"
_TIMER = "timer"

_log = logging.getLogger(__name__)


def audit_blueprint(services: Services, audit: Audit) -> func.Blueprint:
    """Give the timer ``keep_audit``; it also runs when the app starts."""
    blueprint = func.Blueprint()

    @blueprint.function_name("keep_audit")
    @blueprint.timer_trigger("timer", schedule=AUDIT_SCHEDULE, run_on_startup=True, use_monitor=False)
    async def keep_audit(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        audit.folder.write_waiting()
        audit.folder.sync()
        filled = await fill_gaps(
            store=services.store,
            records=services.records,
            sink=audit.folder,
            ids_since=audit.folder.ids_since,
            site=services.site.name,
            clock=services.clock,
        )
        if filled:
            _log.warning("alert=audit-gaps records=%d", filled)
        if audit.feed is not None:
            sent = await audit.feed.send()
            _log.info("audit: sent=%d", sent)

    return blueprint


def retention_blueprint(services: Services, settings: AuditSettings, audit: Audit | None) -> func.Blueprint:
    """Give the timer ``purge_store``, once a night."""
    blueprint = func.Blueprint()

    @blueprint.function_name("purge_store")
    @blueprint.timer_trigger("timer", schedule=PURGE_SCHEDULE)
    async def purge_store(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        now = services.clock.now()
        counts = await purge(services.store, settings.retention_days, vault=services.vault, now=now, dry_run=False)
        days = settings.retention_days.get(Kept.AUDIT)
        files = audit.folder.remove_before(now - timedelta(days=days)) if audit is not None and days else 0
        details = {**{kind.value: str(count) for kind, count in sorted(counts.items())}, "audit-files": str(files)}
        # Also when nothing was old enough: that it was looked is what an auditor asks for.
        services.audit.record(of_operator(Act.PURGE, at=now, by=_TIMER, said="purged", details=details))
        _log.info("purge: %s", " ".join(f"{name}={count}" for name, count in details.items()))

    return blueprint
