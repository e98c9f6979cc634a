"""How the labels of each model stand, in counts: what is known, what waits, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deployr_core.label_rules import ripe_at, rule_name
from deployr_core.packet import Censored, Scored
from deployr_serve.core.infer import Services
from label_extractors.collect import to_label
from label_extractors.waiting import PAGE, ToLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One model's packets and their labels.

    ``ripe``: of the scored ones, those whose time has passed. ``overdue``: ripe, and without a label: the next run has
    them. ``not_yet``: neither. ``corrected``: labels with a history. ``censored``: by reason. ``excluded``: packets
    without a score, by what became of them; they have no label and are in no figure of performance.
    """

    model_id: str
    rule: str
    scored: int
    ripe: int
    observed: int
    corrected: int
    not_yet: int
    overdue: int
    censored: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)


async def standing_of(
    services: Services,
    model_ids: Iterable[str],
    *,
    now: datetime,
    tell: Callable[[int, int], None] = lambda _done, _of: None,
) -> AsyncIterator[Standing]:
    """Give how the labels of each of these models stand, in order of model id; all of its packets are read.

    ``tell`` is told how many packets were read, of how many that are known of.
    """
    done = 0
    for model in to_label(services, model_ids):
        labelled = await _labelled(services, model)
        counts: Counter[str] = Counter()
        excluded: Counter[str] = Counter()
        after: str | None = None
        while page := await services.store.packets(model_id=model.model_id, after=after, limit=PAGE):
            after = page[-1].packet_id
            for packet in page:
                if not isinstance(packet.outcome, Scored):
                    excluded[str(packet.outcome.__struct_config__.tag)] += 1
                    continue
                is_ripe = now >= ripe_at(model.rule, packet.as_of)
                counts["scored"] += 1
                counts["ripe"] += is_ripe
                if packet.packet_id not in labelled:
                    counts["overdue" if is_ripe else "not-yet"] += 1
            done += len(page)
            tell(done, done)
        reasons = Counter(reason for reason, _ in labelled.values() if reason is not None)
        yield Standing(
            model_id=model.model_id,
            rule=rule_name(model.rule),
            scored=counts["scored"],
            ripe=counts["ripe"],
            observed=sum(reason is None for reason, _ in labelled.values()),
            corrected=sum(was_corrected for _, was_corrected in labelled.values()),
            not_yet=counts["not-yet"],
            overdue=counts["overdue"],
            censored=dict(sorted(reasons.items())),
            excluded=dict(sorted(excluded.items())),
        )


async def _labelled(services: Services, model: ToLabel) -> dict[str, tuple[str | None, bool]]:
    """Give, for each packet with a label, why it is censored (None where it is observed), and if it was corrected."""
    found: dict[str, tuple[str | None, bool]] = {}
    after: str | None = None
    rule = rule_name(model.rule)
    while page := await services.store.labels(model_id=model.model_id, rule=rule, after=after, limit=PAGE):
        after = page[-1].label_id
        for label in page:
            reason = label.outcome.reason if isinstance(label.outcome, Censored) else None
            found[label.packet_id] = (reason, bool(label.history))
    return found
