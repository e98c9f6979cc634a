"""What a trial found: from packets and labels to the figures of its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from deployr_cli.trial.hospital import TrialOrder
from deployr_cli.trial.usage import Growth, ProcessorTime
from deployr_core.label_rules import rule_name
from deployr_core.packet import Censored, InferencePacket, Label, Observed, Scored
from deployr_dev.evaluation.held_out import PeopleSource, evaluate_held_out
from deployr_dev.evaluation.records import Evaluation, Measured
from deployr_dev.trained import HeldOutPrediction, TrainedBundle
from deployr_serve.adapters.sqlite_store import SqliteStore

_PAGE = 2_000


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """``n`` labelled rows; what could not be measured is null."""

    n: int
    prevalence: float | None
    auroc: float | None
    low: float | None
    high: float | None


class TaskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as it was measured before the trial and in it."""

    retrospective: Estimated
    prospective: Estimated


class TrialFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` writes.

    ``orders``: asked about. ``packets``: stored. ``unfinished``: of these without an end; ``failed``: that ended
    without a score; ``lost``: which should be there and are not. ``unlabelled``: scored, and neither observed nor
    censored; ``censored``: by reason. ``seconds``: of the whole command; ``orders_per_second``: from the first order
    asked about to the last label extracted; while that went on, ``processor_s``: seconds of processor time by process,
    ``memory_mb``: resident memory by process. From run to run with one seed, only these four differ.
    """

    tasks: Mapping[str, TaskFigures]
    orders: int
    packets: int
    unfinished: int
    failed: int
    lost: int
    unlabelled: int
    censored: Mapping[str, int]
    seconds: float
    orders_per_second: float
    processor_s: Mapping[str, ProcessorTime]
    memory_mb: Mapping[str, Growth]

    @property
    def complaints(self) -> tuple[str, ...]:
        """Say what went wrong, in words, and what to do; empty if nothing did."""
        checks = (
            (self.lost, "packets are lost: see host.log in the workspace for orders that were not answered"),
            (self.unfinished, "packets have no end: a host died under them; see host.log in the workspace"),
            (self.failed, "packets have no score: deployr store counts, with the workspace's store, says why"),
            (self.unlabelled, "packets are without a label that should have one: see alert=labels in host.log"),
        )
        return tuple(f"{count:,} {what}" for count, what in checks if count)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEvidence:
    """What the store holds of one model at the end."""

    rows: tuple[HeldOutPrediction, ...] = field(repr=False)
    packets: int
    unfinished: int
    failed: int
    lost: int
    unlabelled: int
    censored: Counter[str]


async def evidence_of(
    store: SqliteStore, trained: TrainedBundle, orders: Iterable[TrialOrder], *, persons: Mapping[str, int]
) -> ModelEvidence:
    """Read a model's packets and labels, and compare them with the orders that it should have been asked about.

    Args:
        store: the trial's.
        trained: the model.
        orders: of the trial that the model is for.
        persons: the extract's person id of each FHIR patient id.
    """
    manifest = trained.manifest
    outcomes = {label.packet_id: label.outcome for label in await _labels(store, manifest.model_id, trained)}
    expected = Counter((order.event.patient_id, order.event.signed_at) for order in orders)
    rows: list[HeldOutPrediction] = []
    found: Counter[tuple[str, datetime]] = Counter()
    censored: Counter[str] = Counter()
    unfinished = failed = unlabelled = 0
    async for packet in _packets(store, manifest.model_id):
        found[packet.subject.patient_id, packet.as_of] += 1
        if not packet.is_terminal:
            unfinished += 1
        elif not isinstance(packet.outcome, Scored):
            failed += 1
        else:
            label = outcomes.get(packet.packet_id)
            if isinstance(label, Observed) and isinstance(label.value, float):
                rows.append(_row(packet, packet.outcome, label.value, persons[packet.subject.patient_id]))
            elif isinstance(label, Censored):
                censored[label.reason] += 1
            else:
                unlabelled += 1
    # Packet ids differ from run to run, as the site's key does; what is measured must not depend on their order.
    rows.sort(key=lambda row: (row.index_time, row.person_id, row.unit_id))
    return ModelEvidence(
        rows=tuple(rows),
        packets=found.total(),
        unfinished=unfinished,
        failed=failed,
        lost=(expected - found).total(),
        unlabelled=unlabelled,
        censored=censored,
    )


def evaluated(
    trained: TrainedBundle, rows: tuple[HeldOutPrediction, ...], extract: PeopleSource, *, seed: int
) -> Evaluation | None:
    """Measure a model on some rows, as training measures those that it held out; None where there are none."""
    if not rows:
        return None
    evaluation = evaluate_held_out(replace(trained, predictions=rows), extract, seed=seed)
    return evaluation if isinstance(evaluation, Evaluation) else None


def estimated(evaluation: Evaluation | None) -> Estimated:
    """Give the figures of the tables."""
    if evaluation is None:
        return Estimated(n=0, prevalence=None, auroc=None, low=None, high=None)
    prevalence, auroc = evaluation.prevalence, evaluation.auroc
    return Estimated(
        n=evaluation.rows,
        prevalence=prevalence.value if isinstance(prevalence, Measured) else None,
        auroc=auroc.value if isinstance(auroc, Measured) else None,
        low=auroc.low if isinstance(auroc, Measured) else None,
        high=auroc.high if isinstance(auroc, Measured) else None,
    )


async def _labels(store: SqliteStore, model_id: str, trained: TrainedBundle) -> list[Label]:
    rule, found = rule_name(trained.manifest.task.rule), list[Label]()
    while page := await store.labels(
        model_id=model_id, rule=rule, after=found[-1].label_id if found else None, limit=_PAGE
    ):
        found += page
    return found


async def _packets(store: SqliteStore, model_id: str) -> AsyncIterator[InferencePacket]:
    """Give a model's packets; a page of them is in memory at a time."""
    last: str | None = None
    while page := await store.packets(model_id=model_id, after=last, limit=_PAGE):
        for packet in page:
            yield packet
        last = page[-1].packet_id


def _row(packet: InferencePacket, outcome: Scored, label: float, person_id: int) -> HeldOutPrediction:
    return HeldOutPrediction(
        person_id=person_id,
        unit_id=packet.subject.order_id or "",
        index_time=packet.as_of,
        label=label,
        outputs=(outcome.score,),
        features_present=len(outcome.vector.indices),
    )
