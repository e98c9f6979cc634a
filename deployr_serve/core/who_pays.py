"""Who pays for the patient's care: as the caller hands it over, or as the EMR says where the deployment asks for it.

Nothing of this decides over a score, nor keeps one waiting for long: where it cannot be told, it is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from deployr_core.packet import FetchRecord
from deployr_core.patient_groups import PAYERS, Payer
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Budget

WITHIN_S = 1.0
"""How long an inference waits for it at the most, beside all else that it waits for."""
HANDED = "insurance"
"""What the request's context calls it."""


class Coverages(Protocol):
    """Knows who pays for a patient's care."""

    async def payer(
        self, patient_id: str, *, as_of: datetime, budget: Budget | None
    ) -> tuple[Payer | None, FetchRecord]:
        """Give who pays on that day, None where nobody says, and the record of how it was asked.

        Raises:
            ServeError: nobody could tell.
        """


def handed_over(context: Mapping[str, str]) -> Payer | None:
    """Give who pays, where the caller says so in one of our words; any other text is not kept."""
    told = context.get(HANDED, "")
    return Payer(told) if told in PAYERS else None


async def who_pays(
    coverages: Coverages, patient_id: str, *, as_of: datetime, budget: Budget, within_s: float
) -> tuple[Payer | None, tuple[FetchRecord, ...]]:
    """Ask who pays; it never raises, and what was tried is told.

    Args:
        coverages: whoever knows.
        patient_id: whose care.
        as_of: on which day.
        budget: what may be used.
        within_s: how long the inference has left; half of it is the most, and never over a second.
    """
    try:
        async with asyncio.timeout(min(WITHIN_S, within_s / 2)):
            payer, record = await coverages.payer(patient_id, as_of=as_of, budget=budget)
    except ServeError as error:
        return None, error.fetches
    except TimeoutError:
        return None, ()
    return payer, (record,)
