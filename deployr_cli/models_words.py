"""What the registry's commands say in lines: nothing that draws tables is imported for it, a rollback is in a hurry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployr_core.registry.journal import Action
from deployr_core.registry.roles import IN_WORDS, next_steps
from deployr_core.registry.standing import Standing
from deployr_serve.core.registry import Done

DIGITS = 12
"""Of a digest, as many as are shown."""


def done_lines(done: Done) -> Iterable[str]:
    """Say what was done."""
    entry = done.entry
    said, with_other = _SAID[entry.action]
    about = f"{entry.run_id} " if entry.run_id else ""
    yield f"{entry.model_id}: {about}{said}{with_other.format(entry.replaces) if entry.replaces else ''}"
    for item in entry.checklist:
        yield f"  [{'x' if item.passed else ' '}] {item.item}: {item.said}"
    if done.note:
        yield f"  to be seen to: {done.note}"
    yield f"  entry {entry.number} of its journal, {entry.sha256[:DIGITS]}"


_SAID = {
    Action.REGISTERED: ("is a challenger now", ""),
    Action.COMPARED: ("was compared", " with {}"),
    Action.APPROVED: ("is approved; it is not live before it is deployed", ""),
    Action.REJECTED: ("is rejected", ""),
    Action.DEPLOYED: ("is the champion", ", in place of {}"),
    Action.EXPORTED: ("is exported, and the champion", ", in place of {}"),
    Action.ROLLED_BACK: ("is withdrawn", "; {} is the champion again"),
    Action.RETIRED: ("is retired", ""),
    Action.VOUCHED: ("its journal is vouched for, up to this entry", ""),
}
"""What is said of a run, and of the other one where there is one."""


def verdict_lines(verdicts: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Say of each journal whether it is what was written."""
    if not verdicts:
        yield "no model has a journal"
    for told in verdicts:
        signed = f"{told['signed_entries']} of them signed, " if told["signed_entries"] else ""
        told_of = f"{told['compared_heads']} digests that were told elsewhere"
        counted = f"{told['entries']} entries, {signed}compared with {told_of}"
        if told["is_whole"]:
            yield f"ok: {told['model_id']}: {counted}"
        else:
            fault = told["fault"]
            yield f"BROKEN: {told['model_id']}, entry {fault['number']}: {fault['said']} ({counted})"


def next_lines(standing: Standing) -> Iterable[str]:
    """Say what may be done next, and by whom."""
    steps = next_steps(standing)
    if steps:
        yield "What may be done next, and in which role:"
    for step in steps:
        by = " or ".join(step.roles)
        others = f", but not {' or '.join(step.not_by)}" if step.not_by else ""
        yield f"  {IN_WORDS[step.action]}: {step.run_id} ({by}{others})"
