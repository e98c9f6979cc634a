"""Another way to some of the facts than FHIR searches, group by group: what each such way must offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from deployr_core.facts import Demographics, Lab, Vital
from deployr_core.features import FeatureSpec
from deployr_core.packet import FetchRecord, Subject
from deployr_serve.core.ports import Budget


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFacts:
    """What was read: facts by the name of their group, ``labs`` or ``vitals``; who the patient is, where asked for."""

    facts: Mapping[str, tuple[Lab, ...] | tuple[Vital, ...]] = field(repr=False)
    demographics: Demographics | None = field(repr=False)
    records: tuple[FetchRecord, ...]


class GroupReads(Protocol):
    """Reads some groups of facts; the others are searched for as `fhir_plan.plan` says."""

    @property
    def names(self) -> frozenset[str]:
        """Which of the plan's searches it answers for: ``labs``, ``vitals``, ``patient``."""

    def unreadable(self, spec: FeatureSpec) -> tuple[str, ...]:
        """Name the declared groups that are its to read, and that it cannot read whole; see `fhir_plan.unfetchable`."""

    async def read(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None,
        dropped: Counter[str],
    ) -> GroupFacts:
        """Read all of its groups that the declaration holds, at once.

        Args:
            subject: who is asked about.
            spec: the declaration.
            as_of: windows look back from here; what came later may be among the facts.
            budget: what may be used.
            dropped: gets what could not be used counted in, by reason, such as ``labs.not_a_number``.

        Raises:
            ServeError: as for `deployr_serve.core.ports.FactSource.fetch`; its ``fetches`` hold the call that failed.
        """
