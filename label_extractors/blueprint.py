"""The label extractor's timers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import azure.functions as func

from deployr_serve.core.infer import Services
from deployr_serve.core.outcome_source import OutcomeSource
from deployr_serve.core.watch import Step
from deployr_serve.label_settings import LabelSettings
from label_extractors.changes import Noted
from label_extractors.collect import LEFT, collect_labels, failures_in
from label_extractors.pace import pace_of

_log = logging.getLogger(__name__)


def label_blueprint(services: Services, outcomes: OutcomeSource, settings: LabelSettings) -> func.Blueprint:
    """Give the timers that label every packet whose outcome can be known by now.

    ``extract_labels`` for the models without a schedule of their own, ``extract_labels_MODEL`` for each that has one,
    and ``review_labels``, which looks at recent labels of all models again, and at the answers to advisories.
    """
    blueprint = func.Blueprint()
    pace = pace_of(settings)
    own = {
        model_id: schedule
        for model_id in services.models.deployed()
        if (schedule := services.policies.of(model_id).label_schedule) is not None
    }

    def run(name: str, is_for: Callable[[str], bool], *, again: bool = False) -> Callable[[], Awaitable[None]]:
        async def collect() -> None:
            model_ids = [model_id for model_id in services.labelled.deployed() if is_for(model_id)]
            with services.watch.step(Step.LABELS, run=name if name in {"all", "review"} else "model"):
                counts = await collect_labels(
                    services, outcomes, name=name, model_ids=model_ids, again=again, pace=pace
                )
            _tell(name, counts)

        return collect

    _add(blueprint, "extract_labels", settings.schedule, run("all", lambda model_id: model_id not in own))
    for model_id, schedule in own.items():
        _add(blueprint, f"extract_labels_{model_id.replace('-', '_')}", schedule, run(model_id, model_id.__eq__))
    _add(blueprint, "review_labels", settings.review_schedule, run("review", lambda _: True, again=True))
    return blueprint


def _add(blueprint: func.Blueprint, name: str, schedule: str, collect: Callable[[], Awaitable[None]]) -> None:
    @blueprint.function_name(name)
    @blueprint.timer_trigger("timer", schedule=schedule)
    async def tick(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        await collect()


def _tell(name: str, counts: Counter[str]) -> None:
    said = " ".join(f"{kind}={count}" for kind, count in sorted(counts.items())) or "nothing"
    _log.info("labels: run=%s %s", name, said)
    for kind, count in (
        ("failed", failures_in(counts)),
        (LEFT, counts[LEFT]),
        (Noted.CONFLICT, counts[Noted.CONFLICT]),
    ):
        if count:
            _log.warning("alert=labels-%s run=%s packets=%d", kind, name, count)
