"""The timer that erases kept facts when their time is over."""

from __future__ import annotations

import logging

import azure.functions as func

from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.facts_kept import FactsVault
from deployr_serve.core.ports import Clock

EACH_NIGHT = "0 43 3 * * *"
_log = logging.getLogger(__name__)


def facts_blueprint(vault: FactsVault, *, clock: Clock) -> func.Blueprint:
    """Give the function. Every worker may purge: what somebody else has erased is not there to be erased again."""
    blueprint = func.Blueprint()

    @blueprint.function_name("purge_facts")
    @blueprint.timer_trigger("timer", schedule=EACH_NIGHT)
    async def purge(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        try:
            erased = await vault.purge(now=clock.now())
        except StoreUnavailable as error:
            _log.error("facts not purged: error=%s", type(error).__name__)
        else:
            _log.info("facts purged: records=%d", erased)

    return blueprint
