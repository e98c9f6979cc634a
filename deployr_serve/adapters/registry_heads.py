"""How far a model's journal had come, as it was told elsewhere: in audit records, and in the marker of what serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployr_core.registry.journal import Head
from deployr_serve.adapters.audit_folder import AuditFolder, read_lines
from deployr_serve.adapters.bundle_files import read_marker
from deployr_serve.core.audit import Act
from deployr_serve.core.registry_deeds import JOURNAL_DETAIL, head_in
from deployr_serve.outputs.audit_event import ACT_SYSTEM

_AT_ONCE = 1000


def told_heads(model_id: str, *, audit: AuditFolder | None, bundles: Path) -> tuple[Head, ...]:
    """Give every head of a model's journal that was told elsewhere.

    Args:
        model_id: the model.
        audit: where audit records are; None where none are kept.
        bundles: the folder that models are served from.

    Raises:
        BundleInvalid: the marker cannot be read.
        OSError: a file of the audit cannot be read.
    """
    marker = read_marker(bundles / model_id)
    in_marker = () if marker is None else (marker.journal,)
    in_audit = () if audit is None else tuple(_in_audit(audit, model_id))
    return (*in_marker, *in_audit)


def _in_audit(audit: AuditFolder, model_id: str) -> Iterator[Head]:
    for _, file in audit.days():
        offset = 0
        while True:
            events, ends = read_lines(file, offset=offset, limit=_AT_ONCE)
            for event in events:
                details = _details(event)
                head = head_in(details.get(JOURNAL_DETAIL, ""))
                if head is not None and details.get("model") == model_id:
                    yield head
            if not ends:
                break
            offset = ends[-1]


def _details(event: dict[str, Any]) -> dict[str, str]:
    """Give the details of an event of the registry; none of any other."""
    if {"system": ACT_SYSTEM, "code": Act.REGISTRY.value} not in event.get("subtype", ()):
        return {}
    return {
        each["type"]: each["valueString"]
        for entity in event.get("entity", ())
        for each in entity.get("detail", ())
        if "valueString" in each
    }
