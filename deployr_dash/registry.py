"""What the pages read of the registry: journals as they are stored, runs as they lie on the shelf. Nothing here writes.

`deployr dash` gives the reader: it goes to the site's store and shelf, as `deployr models` does, so that the pages work
while the app is down, and recompute the journal's digests instead of believing anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployr_core.governance.card import Card
from deployr_core.registry.comparison import Comparison
from deployr_core.registry.journal import Entry, Fault, Head
from deployr_core.registry.standing import Standing, examined
from deployr_core.signing import TrustedKey
from deployr_serve.core.registry_deeds import ShelvedRun


class NothingOfTheRun(Exception):
    """The run is known, and what was asked for of it is not to be had; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """A model's journal as it is stored. ``standing``: None where there is a ``fault``: then nothing follows from it.

    ``compared``: with how many heads, told elsewhere, it was compared. ``has_keys``: every entry had to be signed by a
    key of the site, or be vouched for by one that is.
    """

    model_id: str
    entries: tuple[Entry, ...]
    standing: Standing | None
    fault: Fault | None
    compared: int
    has_keys: bool

    def about(self, run_id: str) -> tuple[Entry, ...]:
        """Give the entries that name a run, as what was done to it or as what it replaced."""
        return tuple(each for each in self.entries if run_id in {each.run_id, each.replaces})


def journal_of(
    entries: Sequence[Entry], *, model_id: str, heads: Iterable[Head], keys: Sequence[TrustedKey] = ()
) -> Journal:
    """Give a stored journal with what recomputing every digest, and verifying every signature, says of it."""
    told = tuple(heads)
    found = examined(entries, model_id=model_id, heads=told, keys=keys)
    return Journal(
        model_id=model_id,
        entries=tuple(entries),
        standing=found if isinstance(found, Standing) else None,
        fault=found if isinstance(found, Fault) else None,
        compared=len(told),
        has_keys=bool(keys),
    )


class RegistryReader(Protocol):
    """One site's registry, to be read. Every method may raise `deployr_dash.away.StoreAway`.

    ``program``: how `deployr` is called for this site, ``options``: what its commands need to find it, as they are
    typed; ``extract``: likewise for a checklist.
    """

    program: str
    options: str
    extract: str

    def journals(self) -> tuple[Journal, ...]:
        """Give the journal of every model that has one, in order of models."""

    def journal(self, model_id: str) -> Journal | None:
        """Give a model's journal; None if it has none."""

    def in_place(self, model_id: str) -> str | None:
        """Give the digest of the bundle that `deploy` laid in place in this site's folder; None if it never did."""

    def run(self, model_id: str, run_id: str) -> ShelvedRun:
        """Give a run as it lies on the shelf.

        Raises:
            NothingOfTheRun: it is not there, or not what its record says.
        """

    def card(self, model_id: str, run_id: str) -> Card:
        """Give a run's papers with its go / no-go checklist, computed now.

        Raises:
            NothingOfTheRun: a file that they are made of cannot be used.
        """

    def live(self, model_id: str, run_id: str) -> Comparison:
        """Give a shadow beside its champion, on the requests of the extract that both scored.

        Raises:
            NothingOfTheRun: there is nothing to compare.
        """
