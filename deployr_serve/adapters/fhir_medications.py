"""What medication orders refer to: taken from what came with them, and looked up many at a time where it did not."""

from __future__ import annotations

import asyncio

from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import Credentials
from deployr_serve.adapters.fhir_elements import local_id
from deployr_serve.adapters.fhir_plan import Search
from deployr_serve.adapters.fhir_search import FhirClient, Found
from deployr_serve.core.ports import Budget
from deployr_serve.core.request import FHIR_ID

_AT_A_TIME = 100


async def resolve_medications(
    client: FhirClient, found: Found, *, budget: Budget | None = None, credentials: Credentials | None = None
) -> tuple[dict[str, wire.Medication], tuple[FetchRecord, ...]]:
    """Give what the orders refer to, by the text of the reference, and the records of the searches that it took.

    What the server did not include is searched for by id, 100 at a time, all at once. A reference to another server, or
    to what this one does not know, is left out: `fhir_facts.medication` counts it. Nothing is ever asked of another
    server, and contained medications need no looking up.

    Raises:
        ServeError: as `FhirClient.search`; an order whose drug is not known is not one without a drug.
    """
    ids = {
        reference: medication_id
        for order in found.resources
        if isinstance(order, wire.MedicationRequest)
        and (reference := order.medication_reference.reference if order.medication_reference else None) is not None
        and (medication_id := local_id(reference, "Medication", fhir_base=client.base)) is not None
        and FHIR_ID.match(medication_id)
    }
    known = {it.id: it for it in found.included if isinstance(it, wire.Medication)}
    missing = sorted(set(ids.values()) - known.keys())
    batches = [missing[first : first + _AT_A_TIME] for first in range(0, len(missing), _AT_A_TIME)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    client.search(
                        Search(resource_type="Medication", parameters=(("_id", ",".join(batch)),)),
                        name="medications.referenced",
                        budget=budget,
                        credentials=credentials,
                    )
                )
                for batch in batches
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    looked_up = [task.result() for task in tasks]
    known.update({it.id: it for more in looked_up for it in more.resources if isinstance(it, wire.Medication)})
    named = {reference: known[medication_id] for reference, medication_id in ids.items() if medication_id in known}
    return named, tuple(more.record for more in looked_up)
