"""What the app reads by and sends by, with somebody who watches."""

from __future__ import annotations

from datetime import datetime

from deployr_core.bundle import Bundle
from deployr_core.features import FeatureSpec
from deployr_core.packet import InferencePacket, Subject
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Budget, FactSource, FetchedFacts, Handed, Output
from deployr_serve.core.watch import Step, Watch


class WatchedSource:
    """A `FactSource` whose fetches are steps, and whose searches are steps within them."""

    def __init__(self, source: FactSource, watch: Watch) -> None:
        self._source = source
        self._watch = watch

    async def fetch(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None = None,
        handed: Handed | None = None,
    ) -> FetchedFacts:
        """See `FactSource`."""
        with self._watch.step(Step.FETCH):
            try:
                fetched = await self._source.fetch(subject, spec, as_of=as_of, budget=budget, handed=handed)
            except ServeError as error:
                self._watch.fetched(error.fetches)
                raise
            self._watch.fetched(fetched.fetches)
            return fetched


class WatchedOutput:
    """An `Output` whose every sending is a step."""

    def __init__(self, output: Output, watch: Watch) -> None:
        self._output = output
        self._watch = watch

    @property
    def name(self) -> str:
        """See `Output`."""
        return self._output.name

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> str | None:
        """See `Output`."""
        with self._watch.step(Step.DELIVER, output=self._output.name, model=packet.model.model_id):
            return await self._output.send(packet, bundle, delivery_id=delivery_id, budget=budget)
