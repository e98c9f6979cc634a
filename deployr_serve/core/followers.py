"""Who scores beside a champion: what the inference use case knows of shadows, which is little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket
from deployr_serve.core.ports import FetchedFacts, Models
from deployr_serve.core.request import InferenceRequest


class Followers(Protocol):
    """Who scores what a champion has answered; see `deployr_serve.core.shadow`."""

    @property
    def models(self) -> Models:
        """Those who do, by the names that deployment files give them."""

    async def follow(
        self, request: InferenceRequest, packet: InferencePacket, fetched: FetchedFacts, *, champion: Bundle
    ) -> None:
        """Take note of an answer, without delay to whoever waits for it; never raises."""

    async def settled(self) -> None:
        """Return when nothing waits any more."""

    async def aclose(self) -> None:
        """Stop; what waits is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """Champions and shadows as one: whose packets there are, and whose labels are wanted."""

    champions: Models
    shadows: Models

    def bundle(self, model_id: str) -> Bundle:
        """See `deployr_serve.core.ports.Models`."""
        return (self.champions if model_id in self.champions.deployed() else self.shadows).bundle(model_id)

    def deployed(self) -> Mapping[str, str | None]:
        """See `deployr_serve.core.ports.Models`."""
        return {**self.shadows.deployed(), **self.champions.deployed()}
