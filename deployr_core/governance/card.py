"""The model card: every paper's items with what answers them, as one record, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from deployr_core.governance.checklist import Checked
from deployr_core.governance.facts import how_to_know
from deployr_core.governance.performance import Performance, Service
from deployr_core.governance.profile import Answer, Known, Profile, State, answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """One profile, answered."""

    profile: Profile
    answers: tuple[Answer, ...]

    def at(self, state: State) -> tuple[Answer, ...]:
        """Give the answers of that state, in order."""
        return tuple(each for each in self.answers if each.state is state)

    @property
    def in_short(self) -> str:
        """Say how many items are answered: ``12 of 31 answered, 4 partly, 15 missing``."""
        count = {state: len(self.at(state)) for state in State}
        return (
            f"{count[State.ANSWERED]} of {len(self.answers)} answered, {count[State.PARTLY]} partly,"
            f" {count[State.MISSING]} missing"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Everything about one run. ``held_out``, ``service``: the figures behind the facts; None where there are none.

    ``checklist``: the go / no-go checklist as it stood; empty where nobody computed one.
    """

    model_id: str
    run_id: str
    bundle_sha256: str
    known: Known
    papers: tuple[Paper, ...]
    held_out: Performance | None = None
    service: Service | None = None
    checklist: tuple[Checked, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Give every fact that a paper asks for and nobody knows, once, in the order in which they are asked."""
        names = [name for paper in self.papers for answer in paper.answers for name in answer.missing]
        return tuple(dict.fromkeys(names))


def papers_of(profiles: Sequence[Profile], known: Known) -> tuple[Paper, ...]:
    """Answer each profile from what is known."""
    return tuple(Paper(profile=profile, answers=answers(profile, known)) for profile in profiles)


def card_json(card: Card) -> bytes:
    """Give the card as JSON; the same card gives the same bytes."""
    content = {
        "model_id": card.model_id,
        "run_id": card.run_id,
        "bundle_sha256": card.bundle_sha256,
        "facts": {name: {"said": said.lines, "source": said.source} for name, said in sorted(card.known.items())},
        "papers": {paper.profile.name: _paper(paper) for paper in card.papers},
        "missing": {name: how_to_know(name) for name in card.missing},
        "checklist": [asdict(each) for each in card.checklist],
    }
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def _paper(paper: Paper) -> dict[str, object]:
    profile = paper.profile
    return {
        "title": profile.title,
        "source": profile.source,
        "wording": profile.wording,
        "items": [
            {
                "number": each.item.number,
                "section": each.item.section,
                "asked": each.item.asked,
                "state": each.state,
                "answered_by": [said.fact for said in each.said],
                "missing": each.missing,
            }
            for each in paper.answers
        ],
    }
