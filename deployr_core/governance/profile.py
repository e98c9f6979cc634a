"""What a paper asks, item by item, and how each item is answered: by what is known, or by naming what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing that a paper asks.

    ``number``: as the paper's source numbers it. ``asked``: in the source's words, or in ours where the profile says
    so. ``facts``: the names of what answers it (`deployr_core.governance.facts`), each of them needed.
    """

    number: str
    section: str
    asked: str
    facts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.facts:
            raise ValueError(f"expected at least one fact that answers {self.number}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A paper. ``source``: where it is published. ``wording``: whose words the items are, and how they were checked."""

    name: str
    title: str
    source: str
    wording: str
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        if len({item.number for item in self.items}) != len(self.items):
            raise ValueError(f"expected each item of {self.name} once")


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What is known of one fact. ``source``: who or which file says so."""

    fact: str
    lines: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if not self.lines or not all(line.strip() for line in self.lines):
            raise ValueError(f"expected something said of {self.fact}, and no empty line")


Known = Mapping[str, Said]
"""What is known, by the names of the facts; what nobody knows is not in it."""


class State(StrEnum):
    """How far an item is answered."""

    ANSWERED = "answered"
    PARTLY = "partly answered"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One item with what is known of it, and the names of the facts that are missing."""

    item: Item
    said: tuple[Said, ...]
    missing: tuple[str, ...]

    @property
    def state(self) -> State:
        """Say how far the item is answered."""
        if not self.missing:
            return State.ANSWERED
        return State.PARTLY if self.said else State.MISSING


def answers(profile: Profile, known: Known) -> tuple[Answer, ...]:
    """Give every item of a profile, in its order, each with what is known and what is not."""
    return tuple(
        Answer(
            item=item,
            said=tuple(known[name] for name in item.facts if name in known),
            missing=tuple(name for name in item.facts if name not in known),
        )
        for item in profile.items
    )
