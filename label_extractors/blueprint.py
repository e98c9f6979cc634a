"""The label extractor's timer."""

from __future__ import annotations

import logging

import azure.functions as func

from deployr_serve.core.infer import Services
from deployr_serve.core.ports import OutcomeSource
from label_extractors.collect import collect_labels

_log = logging.getLogger(__name__)


def label_blueprint(services: Services, outcomes: OutcomeSource, *, schedule: str) -> func.Blueprint:
    """Give the timer ``extract_labels``, which labels every packet whose outcome can be known by now."""
    blueprint = func.Blueprint()

    @blueprint.function_name("extract_labels")
    @blueprint.timer_trigger("timer", schedule=schedule)
    async def extract_labels(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        counts = await collect_labels(services, outcomes)
        _log.info("labels: %s", " ".join(f"{kind}={count}" for kind, count in sorted(counts.items())) or "nothing")

    return blueprint
