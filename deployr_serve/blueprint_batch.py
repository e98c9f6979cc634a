"""The Functions of batches: for each a timer that looks each minute which slot is due, and one that scores chunks."""

from __future__ import annotations

import logging

import azure.functions as func

from deployr_serve.batch_bootstrap import queue_of
from deployr_serve.core.batch import Batch
from deployr_serve.core.batch_chunk import score_chunk as score
from deployr_serve.core.batch_runs import Run
from deployr_serve.core.batch_start import Batches, start_due
from deployr_serve.core.watch import Step

EACH_MINUTE = "0 * * * * *"
MAX_DEQUEUE_COUNT = 5
"""As in host.json: on the last of its tries a chunk counts what failed as such."""

_log = logging.getLogger(__name__)


def batch_blueprint(batches: Batches) -> func.Blueprint:
    """Give a timer ``batch_NAME`` for each batch, and the queue function ``score_chunk``."""
    blueprint = func.Blueprint()
    for batch in batches.declared:
        _add_timer(blueprint, batch, batches)

    @blueprint.function_name("score_chunk")
    @blueprint.queue_trigger("message", queue_of(batches.at), connection="AzureWebJobsStorage")
    async def score_chunk(message: func.QueueMessage) -> None:
        is_last_try = (message.dequeue_count or 1) >= MAX_DEQUEUE_COUNT
        chunk_id = batches.chunk_in(message.get_body().decode("ascii", errors="replace"))
        if chunk_id is None:
            # Whose it is, is not said: it came from outside.
            _log.error("alert=chunk-of-another-site")
            return
        with batches.services.watch.step(Step.BATCH_CHUNK):
            scored = await score(chunk_id, batches.services, is_last_try=is_last_try)
        if scored.run is None:
            _log.warning("chunk: outcome=%s", scored.outcome)
            return
        _log.info("chunk: chunk=%s outcome=%s", chunk_id, scored.outcome)
        if scored.ended:
            _tell(scored.run)

    return blueprint


def _add_timer(blueprint: func.Blueprint, batch: Batch, batches: Batches) -> None:
    # The host's own notion of the past is not kept (`use_monitor`): the watermark decides.
    @blueprint.function_name(f"batch_{batch.name}")
    @blueprint.timer_trigger("timer", schedule=EACH_MINUTE, use_monitor=False)
    async def tick(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        with batches.services.watch.step(Step.BATCH_START):
            began = await start_due(batch, batches)
        for run in (began.closed, began.run):
            if run is not None:
                _tell(run)


def _tell(run: Run) -> None:
    totals = " ".join(f"{ending}={count}" for ending, count in sorted(run.totals.items()))
    skipped = sum(run.skipped.values())
    about = (run.batch, f"{run.slot:%Y-%m-%dT%H:%M:%SZ}", run.state, run.reason or "-")
    _log.info(
        "batch=%s slot=%s state=%s reason=%s listed=%d patients=%d skipped=%d gap=%d %s",
        *about,
        run.listed,
        run.patients,
        skipped,
        run.gap,
        totals,
    )
    # Once per run, at its end.
    for alert in run.alerts if not run.is_open else ():
        _log.error("alert=%s batch=%s slot=%s state=%s reason=%s", alert, *about)
