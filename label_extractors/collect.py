"""The collecting use case: scored packets that have no label yet, to labels, one read of the EMR per patient."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import groupby

from deployr_core.codes import LOINC, Code
from deployr_core.label_rules import LabRule, deciding_components, rule_name
from deployr_core.packet import Censored, InferencePacket, Label, NotYet, Observed, derive_label_id
from deployr_serve.core.errors import ModelUnavailable
from deployr_serve.core.infer import Services
from deployr_serve.core.ports import Budget, Lane, OutcomeSource
from label_extractors.rules import lab_label

_PAGE = 500
_AT_ONCE = 8
_PER_PATIENT_S = 60.0
"""What reading one patient may take: nobody waits for a label, and it must not take a click's connections."""


async def collect_labels(services: Services, outcomes: OutcomeSource) -> Counter[str]:
    """Label what can be labelled, for every model; give how many came out as what.

    Keys: ``observed``, ``censored``, ``not-yet``, and ``failed`` for packets whose patient could not be read this
    time: one patient's trouble does not stop the others, and the next run tries again. ``unsupported-rule`` counts the
    models whose labels no result decides: their packets are left alone. A label that is there already is left as it is.
    """
    counts: Counter[str] = Counter()
    for model_id in services.models.deployed():
        try:
            bundle = services.models.bundle(model_id)
        except ModelUnavailable:
            continue
        rule = bundle.manifest.task.rule
        if not isinstance(rule, LabRule):
            counts["unsupported-rule"] += 1
            continue
        after: str | None = None
        while True:
            packets = await services.store.unlabelled(model_id=model_id, rule=rule_name(rule), after=after, limit=_PAGE)
            if not packets:
                break
            after = packets[-1].packet_id
            counts.update(await _label_page(packets, rule, services, outcomes))
    return counts


async def _label_page(
    packets: tuple[InferencePacket, ...], rule: LabRule, services: Services, outcomes: OutcomeSource
) -> Counter[str]:
    def patient(packet: InferencePacket) -> str:
        return packet.subject.patient_id

    gate = asyncio.Semaphore(_AT_ONCE)
    counts: Counter[str] = Counter()

    async def one_patient(patient_id: str, group: list[InferencePacket]) -> None:
        async with gate:
            try:
                counts.update(await _label_patient(patient_id, group, rule, services, outcomes))
            except Exception:  # noqa: BLE001 one patient whom nobody foresaw must not stop all the others, every run
                counts["failed"] += len(group)

    async with asyncio.TaskGroup() as tasks:
        for patient_id, group in groupby(sorted(packets, key=patient), key=patient):
            tasks.create_task(one_patient(patient_id, list(group)))
    return counts


async def _label_patient(
    patient_id: str,
    packets: list[InferencePacket],
    rule: LabRule,
    services: Services,
    outcomes: OutcomeSource,
) -> Counter[str]:
    order_ids = tuple(dict.fromkeys(p.subject.order_id for p in packets if p.subject.order_id is not None))
    # A specimen can be dated a little before its order was signed.
    since = min(packet.as_of for packet in packets) - timedelta(days=1)
    codes = tuple(Code(LOINC, component) for component in deciding_components(rule))
    budget = Budget(
        deadline=services.clock.monotonic() + _PER_PATIENT_S,
        correlation_id=f"labels.{packets[0].packet_id}",
        lane=Lane.BATCH,
    )
    found = await outcomes.outcomes(patient_id, order_ids=order_ids, codes=codes, since=since, budget=budget)
    counts: Counter[str] = Counter()
    now = services.clock.now()
    for packet in packets:
        order_id = packet.subject.order_id
        outcome = lab_label(
            rule,
            as_of=packet.as_of,
            order_id=order_id,
            labs=found.labs,
            order=found.orders.get(order_id) if order_id else None,
            now=now,
        )
        match outcome:
            case NotYet():
                counts["not-yet"] += 1
            case Observed() | Censored():
                label = Label(
                    label_id=derive_label_id(packet.packet_id, rule_name(rule)),
                    packet_id=packet.packet_id,
                    rule=rule_name(rule),
                    outcome=outcome,
                    attached_at=now,
                )
                if await services.store.attach_label(label):
                    counts["observed" if isinstance(outcome, Observed) else "censored"] += 1
    return counts
