"""The laboratory: what comes back for an order that was signed on the screen, drawn from the patient's own chart.

A chart holds the results that are still to come as well, which were drawn from the patient's latent illness where the
chart is the synthetic hospital's. A new result lies between the one before its draw and the one after, so it follows
the same illness without any of it being known here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from math import exp, log
from typing import Any, Final

import msgspec
import numpy as np
from numpy.random import Generator

from mock_emr.dates import DateError, interval_of, wire_instant
from mock_emr.elements import child, codings, each, reference_text, references
from mock_emr.store import Record, Store

Resource = Mapping[str, Any]

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
_LOOKED_AT = 5_000
_BRIDGED = timedelta(days=7)
"""The two results that a new one lies between are apart by so much at most; else it follows the nearer one."""
_LEAST_NOISE, _MOST_NOISE = 0.01, 0.1
"""Spread of a new result around where the others put it, as a share: of its own what the patient's results show."""


@dataclass(frozen=True, kw_only=True)
class _Past:
    """One result that the chart holds, shown or not."""

    at: datetime
    value: float = field(repr=False)
    decimals: int
    resource: Resource = field(repr=False)


class Laboratory:
    """Draws the results of new orders; equal charts, seeds and orders give equal results."""

    def __init__(self, store: Store, *, seed: int = 0) -> None:
        self._store = store
        self._seed = seed

    def results(self, order: Resource, *, linked: bool) -> tuple[tuple[datetime, Resource], ...]:
        """Give an order's results, each with the instant at which it comes in; none of a test that never had any here.

        Which components there are, and how long they take, is as it was for an order of the same test: one of this
        patient, the nearest in time, or else anybody's.

        Args:
            order: as it was signed; of one patient, with the instant.
            linked: results name the order (``basedOn``), as most laboratories' do.
        """
        signed = interval_of(str(order["authoredOn"])).low
        patient_id = (reference_text(order.get("subject")) or "").partition("/")[2]
        like = next(self._like(order, patient_id, signed), None)
        if like is None:
            return ()
        earlier_order, found = like
        earlier = interval_of(str(earlier_order["authoredOn"])).low
        held = self._held(patient_id)
        results = []
        for model in found:
            drawn = signed + max(_instant(model, "effectiveDateTime") - earlier, timedelta())
            issued = max(signed + (_issued(model) - earlier), drawn)
            made = self._result(order, model, held[_key(model)], drawn=drawn, issued=issued, signed=signed)
            results.append((issued, {**made, "basedOn": [_to(order)]} if linked else made))
        return tuple(sorted(results, key=lambda each: each[0]))

    def _like(
        self, order: Resource, patient_id: str, signed: datetime
    ) -> Iterator[tuple[Resource, tuple[Resource, ...]]]:
        """Give orders of the same test with their results: this patient's, the nearest first, then others'."""
        wanted = set(codings(order.get("code")))
        own = self._orders(self._store.of_patients("ServiceRequest", (patient_id,)), wanted)
        nearest = sorted(own, key=lambda each: abs(interval_of(str(each["authoredOn"])).low - signed))
        others = self._orders(islice(self._store.all_of("ServiceRequest"), _LOOKED_AT), wanted)
        for found in (*nearest, *others):
            whose = (reference_text(found.get("subject")) or "").partition("/")[2]
            address = f"ServiceRequest/{found['id']}"
            results = tuple(
                held.resource
                for helds in self._held(whose).values()
                for held in helds
                if address in references(held.resource.get("basedOn"))
            )
            if results:
                yield found, results

    def _orders(self, records: Any, wanted: set[tuple[str, str]]) -> Iterator[Resource]:
        for record in records:
            if any(term in record.settled.terms.get("code", ()) for term in wanted):
                found = msgspec.json.decode(record.settled.body)
                if "authoredOn" in found:
                    yield found

    def _held(self, patient_id: str) -> Mapping[str, list[_Past]]:
        """Give the patient's results with a number, by what they are of, in order of their draw."""
        held: defaultdict[str, list[_Past]] = defaultdict(list)
        for record in self._store.of_patients("Observation", (patient_id,)):
            if (past := _past(record)) is not None:
                held[_key(past.resource)].append(past)
        for found in held.values():
            found.sort(key=lambda past: past.at)
        return held

    def _result(
        self,
        order: Resource,
        model: Resource,
        own: list[_Past],
        *,
        drawn: datetime,
        issued: datetime,
        signed: datetime,
    ) -> Resource:
        seed = f"{self._seed} {order['subject']['reference']} {_key(model)} {signed.isoformat()}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
        kept = own[-1].resource if own else model
        decimals = max((past.decimals for past in own), default=_decimals(child(model, "valueQuantity").get("value")))
        value = round(_drawn(model, own, drawn, rng=rng), decimals)
        quantity = {**child(kept, "valueQuantity"), "value": value if decimals else int(value)}
        made: dict[str, Any] = {
            "resourceType": "Observation",
            "status": "final",
            "category": model.get("category"),
            "code": model.get("code"),
            "subject": order["subject"],
            "effectiveDateTime": wire_instant(drawn),
            "issued": wire_instant(issued),
            "valueQuantity": quantity,
        }
        if "encounter" in order:
            made["encounter"] = order["encounter"]
        limits = next(each(kept.get("referenceRange")), None)
        if limits is not None:
            made["referenceRange"] = kept["referenceRange"]
            made["interpretation"] = [{"coding": [_flag(value, limits)]}]
        return made


def _drawn(model: Resource, own: list[_Past], at: datetime, *, rng: Generator) -> float:
    """Give a value where the patient's others put it: between the two around its draw, or at the nearer one's."""
    before = next((past for past in reversed(own) if past.at <= at), None)
    after = next((past for past in own if past.at > at), None)
    noise = _noise(own) * rng.standard_normal()
    if before and after and after.at - before.at <= _BRIDGED and min(before.value, after.value) > 0:
        share = (at - before.at) / (after.at - before.at)
        return before.value * exp(share * log(after.value / before.value) + noise)
    nearest = min((past for past in (before, after) if past), key=lambda past: abs(past.at - at), default=None)
    if nearest is not None:
        return nearest.value * exp(noise)
    limits = next(each(model.get("referenceRange")), {})
    ends = [child(limits, end).get("value") for end in ("low", "high")]
    numbers = [float(end) for end in ends if isinstance(end, int | float)]
    middle = sum(numbers) / len(numbers) if numbers else float(child(model, "valueQuantity")["value"])
    return middle * exp(_MOST_NOISE * rng.standard_normal())


def _noise(own: list[_Past]) -> float:
    """Give half of what one result of this patient usually is from the next, as a share, within bounds."""
    values = [past.value for past in own if past.value > 0]
    if len(values) < 3:
        return _LEAST_NOISE
    steps = np.diff(np.log(values))
    return float(np.clip(np.median(np.abs(steps)) / 2, _LEAST_NOISE, _MOST_NOISE))


def _past(record: Record) -> _Past | None:
    resource = msgspec.json.decode(record.settled.body)
    value = child(resource, "valueQuantity").get("value")
    is_lab = any(code == "laboratory" for _, code in codings(resource.get("category")))
    if not is_lab or not isinstance(value, int | float):
        return None
    try:
        at = _instant(resource, "effectiveDateTime")
        _issued(resource)
    except DateError:
        return None
    return _Past(at=at, value=float(value), decimals=_decimals(value), resource=resource)


def _instant(resource: Resource, name: str) -> datetime:
    return interval_of(str(resource.get(name))).low


def _issued(resource: Resource) -> datetime:
    return _instant(resource, "issued" if "issued" in resource else "effectiveDateTime")


def _key(result: Resource) -> str:
    """Say what a result is of, and in which unit, so that numbers in another are not mixed with it."""
    codes = " ".join(f"{system}|{code}" for system, code in codings(result.get("code")))
    return f"{codes} {child(result, 'valueQuantity').get('unit', '')}"


def _decimals(value: object) -> int:
    return len(str(value).partition(".")[2]) if isinstance(value, float) else 0


def _to(order: Resource) -> Resource:
    return {"reference": f"ServiceRequest/{order['id']}"}


def _flag(value: float, limits: Resource) -> Resource:
    low, high = child(limits, "low").get("value"), child(limits, "high").get("value")
    is_low, is_high = low is not None and value < low, high is not None and value > high
    return {
        "system": f"{_TERMINOLOGY}v3-ObservationInterpretation",
        "code": "L" if is_low else "H" if is_high else "N",
    }
