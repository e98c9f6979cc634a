"""Order entry: the bridge is asked while an order is being signed, and what it advises is answered first."""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from mock_emr.dates import wire_instant
from mock_emr.elements import child, each, reference_text
from mock_emr.emr import Emr
from mock_emr.laboratory import Laboratory
from mock_emr.screens.advisories import Advisory
from mock_emr.screens.asking import CLINICIAN, Answered, Question, advice, report, taken_up
from mock_emr.screens.bridge import Bridge

_LOOKED_AT = 5_000
_MOST_PENDING = 200

Resource = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Orderable:
    """A test that can be ordered."""

    system: str
    code: str
    name: str

    @property
    def key(self) -> str:
        """Give what a form calls it."""
        return f"{self.system}|{self.code}"


@dataclass(frozen=True, kw_only=True)
class Pending:
    """An order about which something was advised. ``is_filed``: the chart has it already, as alerts expect."""

    question: Question
    patient_id: str = field(repr=False)
    test: str
    advisories: tuple[Advisory, ...]
    is_filed: bool


class Ordering:
    """What can be ordered, and the orders that wait for an answer."""

    def __init__(self, emr: Emr, bridge: Bridge) -> None:
        self._emr = emr
        self._bridge = bridge
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._drafts = 0
        self._orderables: tuple[Orderable, ...] | None = None
        self._laboratory = Laboratory(emr.store)

    def orderables(self) -> tuple[Orderable, ...]:
        """Give the tests that were ordered here before, those ordered most often first."""
        if self._orderables is None:
            counted: Counter[Orderable] = Counter()
            for record in islice(self._emr.store.all_of("ServiceRequest"), _LOOKED_AT):
                concept = child(msgspec.json.decode(record.settled.body), "code")
                coding = next(each(concept.get("coding")), {})
                if code := coding.get("code"):
                    name = str(concept.get("text") or coding.get("display") or code)
                    counted[Orderable(system=str(coding.get("system", "")), code=str(code), name=name)] += 1
            self._orderables = tuple(orderable for orderable, _ in counted.most_common())
        return self._orderables

    def pending(self, token: str) -> Pending | None:
        """Give the order that waits under this token."""
        return self._pending.get(token)

    async def sign(self, test: Orderable, *, patient_id: str, encounter_id: str, fhir_base: str) -> str | None:
        """Sign an order, unless the bridge advises: then an answer is waited for, under the token that is given.

        With CDS Hooks a draft is asked about and filed once it is signed; an alert asks about an order that is filed.
        """
        at = self._emr.clock.now().replace(microsecond=0)
        coding = {"system": test.system, "code": test.code, "display": test.name}
        order: Resource = {
            "resourceType": "ServiceRequest",
            "status": "draft",
            "intent": "order",
            "code": {"coding": [coding], "text": test.name},
            "subject": {"reference": f"Patient/{patient_id}"},
            "encounter": {"reference": f"Encounter/{encounter_id}"},
            "authoredOn": wire_instant(at),
            "requester": {"reference": f"Practitioner/{CLINICIAN}"},
        }
        settings, encounter = self._bridge.settings, self._emr.store.read("Encounter", encounter_id, now=at)
        is_filed = settings is None or settings.way == "bpa" or encounter is None
        order = self._file(order) if is_filed else {**order, "id": self._draft_id()}
        if settings is None or encounter is None:
            return None
        question = Question(
            order=order,
            encounter=msgspec.json.decode(encounter.body),
            settings=settings,
            fhir_base=fhir_base,
            at=at,
        )
        advisories = await advice(self._bridge, question)
        if not advisories:
            if not is_filed:
                self._file(order)
            return None
        return self._wait(
            Pending(question=question, patient_id=patient_id, test=test.name, advisories=advisories, is_filed=is_filed)
        )

    async def answer(self, token: str, answered: Answered) -> bool:
        """Carry out what the clinician answered, and report it; give whether the order stands.

        Raises:
            KeyError: nothing waits under this token.
        """
        pending = self._pending.pop(token)
        taken = [one for advisory in pending.advisories if (one := taken_up(advisory, answered)) is not None]
        stands = not any(one.takes_back for one in taken)
        order = pending.question.order
        if stands and not pending.is_filed:
            self._file(order)
        elif pending.is_filed and not stands:
            revoked = {**order, "status": "revoked"}
            self._emr.written.update(revoked, str(order["id"]), now=self._emr.clock.now())
        for resource in (made for one in taken for made in one.creates):
            is_theirs = reference_text(resource.get("subject")) == f"Patient/{pending.patient_id}"
            if is_theirs and resource.get("resourceType") == "ServiceRequest":
                self._file(resource)
        at = self._emr.clock.now()
        await report(self._bridge, pending.question, pending.advisories, answered, at=at)
        return stands

    def _file(self, order: Resource) -> Resource:
        """File an order; its results come in as the clock moves on.

        A packet over CDS Hooks knows no order's id, so a result that names one could never be its label: those come as
        from a laboratory whose interface does not link them.
        """
        form = self._emr.written.create({**order, "status": "active"}, now=self._emr.clock.now())
        filed: Resource = msgspec.json.decode(form.body)
        settings = self._bridge.settings
        results = self._laboratory.results(filed, linked=settings is None or settings.way == "bpa")
        self._emr.written.expect(results, order_id=str(filed["id"]))
        return filed

    def _draft_id(self) -> str:
        self._drafts += 1
        return f"draft-{self._drafts}"

    def _wait(self, pending: Pending) -> str:
        token = secrets.token_urlsafe(24)
        self._pending[token] = pending
        if len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)
        return token
