"""What the store and the EMR hold after a measurement, against what was asked: lost, and twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import aiohttp

from benchmarks.scale_hosts import House
from deployr_cli.demo.run import TASK
from deployr_core.packet import DeliveryState, Scored, Subject
from deployr_serve.core.ports import InferenceStore

_PAGE, _ALL = 1_000, 100_000
Wanted = tuple[str, str | None]
"""A patient and an order, or no order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """``wanted``: requests and patients of the slot that must have one packet and one score in the EMR, each.

    ``lost``: those without a scored packet, and scores without a row in the EMR. ``twice``: packets beyond one each.
    ``written_twice``: rows in the EMR beyond one for each. ``sent_again``: writes that the EMR recognised by their id.
    ``states``: deliveries by their state. ``taken_over``: packets with an earlier attempt, by what ended it.
    """

    wanted: int
    packets: int
    lost: int
    twice: int
    written_twice: int
    sent_again: int
    states: Mapping[str, int]
    taken_over: Mapping[str, int]


async def count(
    house: House, session: aiohttp.ClientSession, store: InferenceStore, *, wanted: Collection[Wanted]
) -> Counts:
    """Count once nothing waits any more."""
    scored, attempts, packets, after = Counter[Wanted](), Counter[str](), 0, None
    while page := await store.packets(model_id=TASK, after=after, limit=_PAGE):
        packets += len(page)
        after = page[-1].packet_id
        scored.update(_about(each.subject) for each in page if isinstance(each.outcome, Scored))
        attempts.update(attempt.reason for each in page for attempt in each.earlier_attempts)
    rows, again = await _rows(house, session)
    return Counts(
        wanted=len(wanted),
        packets=packets,
        lost=sum(not scored[each] for each in wanted) + max(len(wanted) - rows.total(), 0),
        twice=max(packets - len(wanted), 0),
        written_twice=rows.total() - len(rows) + max(len(rows) - len(wanted), 0),
        sent_again=again,
        states={
            str(state): len(await store.deliveries(state=state, after=None, limit=100_000)) for state in DeliveryState
        },
        taken_over=dict(attempts),
    )


async def is_settled(store: InferenceStore) -> bool:
    """Tell whether every delivery has come to an end."""
    return not await store.deliveries(state=DeliveryState.PENDING, after=None, limit=1)


async def _rows(house: House, session: aiohttp.ClientSession) -> tuple[Counter[str], int]:
    """Give the rows of the EMR's score columns by the id of their write, and the writes that it recognised."""
    async with session.get(f"{house.processes.emr}/admin/scores") as response:
        cells = (await response.json())["scores"]
    async with session.get(f"{house.processes.emr}/admin/journal/summary") as response:
        summary = await response.json()
    return Counter(row["jobId"] for cell in cells for row in cell["rows"]), int(summary["score_writes_repeated"])


def _about(subject: Subject) -> Wanted:
    return subject.patient_id, subject.order_id
