"""A way out to the site's own service: a signed event."""

from __future__ import annotations

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.http import Request, Transport, error_of_status
from deployr_serve.adapters.vendor_write import REFUSED
from deployr_serve.core.errors import EmrRefused
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Budget, Clock
from deployr_serve.outputs.webhook import render_webhook


class Webhook:
    """Posts events to one URL, which carries nothing about a patient. Redirects are not followed.

    A receiver tells repeats by the ``Idempotency-Key``, which is the delivery's id. The EMR's credentials never go
    there: the signature is all that lets an event in.
    """

    name = "webhook"

    def __init__(self, *, url: str, key: bytes, transport: Transport, policies: Policies, clock: Clock) -> None:
        self._url = url
        self._key = key
        self._transport = transport
        self._policies = policies
        self._clock = clock

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> None:
        """Send one event; see `deployr_serve.core.ports.Output`."""
        policy = self._policies.of(packet.model.model_id)
        event = render_webhook(
            packet, bundle.manifest, policy=policy, delivery_id=delivery_id, key=self._key, now=self._clock.now()
        )
        response = await self._transport.send(
            Request(method="POST", url=self._url, headers=event.headers, body=event.body, writes=True, budget=budget)
        )
        if response.status in REFUSED or response.status == 401:
            raise EmrRefused(f"expected the site's service to take the event, got status {response.status}")
        if error := error_of_status(response):
            raise error
