"""The timer that looks for what somebody should be told of, because at 3 a.m. no dashboard runs."""

from __future__ import annotations

import logging
from collections import Counter

import azure.functions as func

from deployr_serve.core.alert_watch import AlertWatch
from deployr_serve.core.errors import ServeError

_log = logging.getLogger(__name__)


def alert_blueprint(watch: AlertWatch, *, schedule: str) -> func.Blueprint:
    """Give the function. Every worker may look: one at a time does, and an alert is told once."""
    blueprint = func.Blueprint()

    @blueprint.function_name("watch_alerts")
    @blueprint.timer_trigger("timer", schedule=schedule)
    async def watch_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        try:
            looked = await watch.look()
        except ServeError as error:
            _log.error("alert=alerts-not-looked-at reason=%s", error.reason)
            return
        if looked.was_busy:
            _log.info("alerts: another worker is looking")
            return
        counts = Counter(each.verdict.value for each in looked.findings)
        said = " ".join(f"{verdict}={count}" for verdict, count in sorted(counts.items())) or "nothing"
        _log.info("alerts: %s told=%d unsent=%s", said, len(looked.notices), ",".join(looked.unsent) or "-")

    return blueprint
