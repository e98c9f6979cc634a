"""The collecting use case: scored packets to labels, one read of the EMR per patient, whatever reads the labels."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from deployr_core.label_rules import ADHERENCE, rule_name
from deployr_core.labels import RuleFailed
from deployr_core.packet import EventKind
from deployr_serve.core.errors import UNEXPECTED, ModelUnavailable, ServeError
from deployr_serve.core.infer import Services
from deployr_serve.core.outcome_source import OutcomeFacts, OutcomeSource
from deployr_serve.core.ports import Budget, Lane
from label_extractors.adherence import adherence
from label_extractors.changes import Noted, note
from label_extractors.needs import needs_of
from label_extractors.pace import DEFAULT_PACE, Pace
from label_extractors.rules import label_of
from label_extractors.waiting import PAGE, Span, ToLabel, Waiting, leave_off, left_off, spans

_AT_ONCE = 8
_NOTED_AT_ONCE = 32
_PER_PATIENT_S = 60.0
"""What reading one patient may take: nobody waits for a label, and it must not take a click's connections."""

FAILED, LEFT, UNAVAILABLE = "failed", "left", "model-unavailable"

Tell = Callable[[int, int], None]


def failures_in(counts: Mapping[str, int]) -> int:
    """Give how many packets of a run could not be read, for whatever reason."""
    return sum(count for kind, count in counts.items() if kind.startswith(f"{FAILED}:"))


def to_label(services: Services, model_ids: Iterable[str]) -> tuple[ToLabel, ...]:
    """Give those of the models whose bundle can be used, with their rules, in order of id."""
    found = []
    for model_id in sorted(model_ids):
        try:
            manifest = services.labelled.bundle(model_id).manifest
        except ModelUnavailable:
            continue
        found.append(ToLabel(model_id=model_id, rule=manifest.task.rule, visit_classes=manifest.requires.visit_classes))
    return tuple(found)


async def collect_labels(
    services: Services,
    outcomes: OutcomeSource,
    *,
    name: str = "all",
    model_ids: Iterable[str] | None = None,
    again: bool = False,
    pace: Pace = DEFAULT_PACE,
    tell: Tell = lambda _done, _of: None,
) -> Counter[str]:
    """Label what can be labelled; give how many packets came out as what.

    Keys: those of `label_extractors.changes.Noted`; ``failed:REASON`` for packets whose patient could not be read this
    time, and ``failed:rule`` for those whose expression could not be evaluated: one patient's trouble does not stop the
    others, and the next run tries again; ``left`` for those that the time was too short for, with which the next run of
    the same name begins; ``model-unavailable`` for models. Answers to advisories are counted as ``adherence.accepted``
    and so on, and ``adherence.not-yet``.

    Args:
        services: the app's.
        outcomes: what has become of patients.
        name: of the run: what was left is gone on with under it.
        model_ids: which models; None for all that are deployed, and their shadows.
        again: look at labels that are there again, and at the answers to advisories.
        pace: how much is done.
        tell: is told how many patients are done, of how many that are known of.
    """
    counts: Counter[str] = Counter()
    chosen = tuple(services.labelled.deployed()) if model_ids is None else tuple(model_ids)
    models = to_label(services, chosen)
    if len(models) < len(chosen):
        counts[UNAVAILABLE] = len(chosen) - len(models)
    now = services.clock.now()
    run = _Run(services=services, outcomes=outcomes, until=services.clock.monotonic() + pace.budget_s, tell=tell)
    place = await left_off(services.records, name, now=now)
    async for span in spans(
        services.store,
        models,
        began=place,
        again_for=pace.corrections if again else None,
        now=now,
        at_most=pace.together,
    ):
        counts.update(await run.label(span))
        if counts[LEFT]:
            break
        place = span.then
        if place is not None:
            await leave_off(services.records, name, place, now=now)
    else:
        place = None
    await leave_off(services.records, name, place, now=now)
    if again:
        counts.update(await _adherence(services, pace))
    return counts


class _Run:
    """One run under way: its time, and how far it is."""

    def __init__(self, *, services: Services, outcomes: OutcomeSource, until: float, tell: Tell) -> None:
        self._services = services
        self._outcomes = outcomes
        self._until = until
        self._tell = tell
        self._done = self._known_of = 0

    async def label(self, span: Span) -> Counter[str]:
        """Label the packets of a span, patient by patient, several at once."""
        of_patient: defaultdict[str, list[Waiting]] = defaultdict(list)
        for waiting in span.packets:
            of_patient[waiting.asked.subject.patient_id].append(waiting)
        self._known_of += len(of_patient)
        counts: Counter[str] = Counter()
        # Begun at another patient each time, so that it is not always the same whom a short time leaves out.
        held = list(of_patient.items())
        first = int(self._services.clock.now().timestamp()) % len(held)
        patients = iter(held[first:] + held[:first])

        async def work() -> None:
            for patient_id, group in patients:
                if self._services.clock.monotonic() >= self._until:
                    counts[LEFT] += len(group)
                    continue
                try:
                    counts.update(await self._label_patient(patient_id, group))
                except ServeError as error:
                    counts[f"{FAILED}:{error.reason}"] += len(group)
                except Exception:  # noqa: BLE001 one patient whom nobody foresaw must not stop all the others, every run
                    counts[f"{FAILED}:{UNEXPECTED}"] += len(group)
                self._done += 1
                self._tell(self._done, self._known_of)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_AT_ONCE, len(of_patient))):
                tasks.create_task(work())
        return counts

    async def _label_patient(self, patient_id: str, group: list[Waiting]) -> Counter[str]:
        clock = self._services.clock
        budget = Budget(
            deadline=clock.monotonic() + _PER_PATIENT_S,
            correlation_id=f"labels.{group[0].packet_id}",
            lane=Lane.BATCH,
        )
        read_at = clock.now()
        facts = await self._outcomes.outcomes(patient_id, needs_of([waiting.asked for waiting in group]), budget=budget)
        counts: Counter[str] = Counter()
        # Several at once: a store that writes together what comes together is asked for few flushes.
        for start in range(0, len(group), _NOTED_AT_ONCE):
            some = group[start : start + _NOTED_AT_ONCE]
            counts.update(await asyncio.gather(*(self._note(waiting, facts, read_at=read_at) for waiting in some)))
        return counts

    async def _note(self, waiting: Waiting, facts: OutcomeFacts, *, read_at: datetime) -> str:
        now = self._services.clock.now()
        try:
            outcome = label_of(waiting.asked, facts, now=now)
        except RuleFailed:
            return f"{FAILED}:rule"
        rule = rule_name(waiting.asked.rule)
        return await note(self._services.store, waiting.packet_id, rule, outcome, read_at=read_at, now=now)


async def _adherence(services: Services, pace: Pace) -> Counter[str]:
    """Label what clinicians did about the advisories that they were shown lately."""
    counts: Counter[str] = Counter()
    now = services.clock.now()
    since = now - pace.corrections - timedelta(hours=pace.adherence_hours)
    after: str | None = None
    seen: set[str] = set()
    while page := await services.store.shown(since=since, after=after, limit=PAGE):
        after = page[-1].event_id
        for packet_id in dict.fromkeys(event.packet_id for event in page):
            if packet_id in seen:
                continue
            seen.add(packet_id)
            events = await services.store.events(packet_id)
            shown_at = min(event.at for event in events if event.kind is EventKind.SHOWN)
            outcome = adherence(events, shown_at=shown_at, hours=pace.adherence_hours, now=now)
            noted = await note(services.store, packet_id, ADHERENCE, outcome, read_at=now, now=now)
            value = getattr(outcome, "value", "") if noted is Noted.OBSERVED else noted.value
            counts[f"{ADHERENCE}.{value}"] += 1
    return counts
