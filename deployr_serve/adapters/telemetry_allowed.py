"""What telemetry may say: an allow-list of names with the values that each may have. Whatever else leaves as nothing.

Kept twice: where our own steps are told, and once more in front of whatever exports. Stock instrumentation records
whole addresses and the texts of exceptions; nobody has to remember to switch it off, because what it adds does not get
out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from deployr_core.coverage import Shortfall
from deployr_core.document_columns import DocumentShortfall
from deployr_core.forgetting import FORGOTTEN
from deployr_core.packet import Mode
from deployr_serve.core.decide import SWITCHED_OFF
from deployr_serve.core.errors import UNEXPECTED, ServeError
from deployr_serve.core.watch import Level, Step

PREFIX = "deployr."
OTHER = "other"
"""What stands in place of a value that is not on the list."""
MEASURED = ("step", "model", "channel", "outcome", "reason", "error", "resource", "output", "mode", "replayed", "run")
"""What metrics are told apart by: nothing of which there is one for each request."""

_CHANNELS = frozenset({"json", "bpa", "cds-hooks", "timer", "form"})
_OUTCOMES = frozenset({"scored", "abstained", "rejected", "failed", "unfinished", "refused", "done"})
_RESOURCES = frozenset(
    {
        *("Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "MedicationOrder", "Medication"),
        *("Procedure", "ServiceRequest", "ProcedureRequest", "DiagnosticReport", "Location"),
        *("DocumentReference", "Binary", "Coverage"),
        *("Identifiers", "ResultComponents", "FlowsheetRows", "Demographics", "UnitCensus"),
    }
)
_PACKET_ID = re.compile(r"p[0-9a-f]{32}\Z")
_OWN_CORRELATION_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
"""A caller may send whatever it likes as its id, a patient's number too. One that was drawn by chance says nothing."""
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}(Error|Exception|Exit|Group|Timeout|Invalid|Unavailable)\Z")


class Allowed:
    """The list, as one app has it.

    Args:
        models: gives the ids that are deployed now.
        outputs: the names of the ways out.
    """

    def __init__(self, *, models: Callable[[], Collection[str]], outputs: Collection[str]) -> None:
        reasons = frozenset(_reasons())
        steps, levels, modes = frozenset(Step), frozenset(Level), frozenset(Mode)
        self._outputs = frozenset(outputs)
        self._may: Mapping[str, Callable[[str], object]] = {
            "step": steps.__contains__,
            "level": levels.__contains__,
            "model": lambda value: value in models(),
            "channel": _CHANNELS.__contains__,
            "outcome": _OUTCOMES.__contains__,
            "reason": reasons.__contains__,
            "error": _CLASS.match,
            "resource": _RESOURCES.__contains__,
            "output": self._outputs.__contains__,
            "mode": modes.__contains__,
            "replayed": ("0", "1").__contains__,
            "run": ("all", "review", "model").__contains__,
            "packet_id": _PACKET_ID.match,
            "correlation_id": _OWN_CORRELATION_ID.match,
        }

    def attributes(self, about: Mapping[str, Any]) -> dict[str, str]:
        """Give what may be said of it, under our own prefix; what is empty, or has a name of its own, is left out."""
        said = {}
        for name, value in about.items():
            may = self._may.get(name)
            if may is None or value is None or value == "":
                continue
            said[PREFIX + name] = str(value) if isinstance(value, str) and may(value) else OTHER
        return said

    def again(self, attributes: Mapping[str, Any] | None) -> dict[str, str]:
        """Give what may leave of attributes that stand under our prefix already."""
        bare = {name.removeprefix(PREFIX): value for name, value in (attributes or {}).items() if PREFIX in name}
        return self.attributes(bare)


def _reasons() -> Iterator[str]:
    """Give every reason code that the app has a class or a name for."""
    yield from (UNEXPECTED, SWITCHED_OFF, FORGOTTEN, *Shortfall, *DocumentShortfall)
    waiting: list[type[ServeError]] = [ServeError]
    while waiting:
        kind = waiting.pop()
        yield kind.reason
        waiting += kind.__subclasses__()
