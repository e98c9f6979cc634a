"""Answers that are too large to be written down."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

_MEGABYTE = 1 << 20
_FHIR = {"Content-Type": "application/fhir+json"}
_OPENING = b'{"resourceType":"Bundle","type":"searchset","total":0,"id":"'


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A body, whole or in pieces, and its headers."""

    body: bytes | Iterable[bytes]
    headers: Mapping[str, str]


@cache
def _bomb() -> bytes:
    return gzip.compress(_OPENING + b"0" * (200 * _MEGABYTE) + b'"}', compresslevel=1)


def _gzip_bomb(_: Any) -> Generated:
    return Generated(body=_bomb(), headers={**_FHIR, "Content-Encoding": "gzip"})


def _two_hundred_megabytes(_: Any) -> Generated:
    def pieces() -> Iterable[bytes]:
        yield _OPENING
        for _ in range(200):
            yield b"0" * _MEGABYTE
        yield b'"}'

    return Generated(body=pieces(), headers=_FHIR)


def _many(entry: Mapping[str, Any], count: int) -> bytes:
    start, end = json.dumps(entry).split('"@id"')
    entries = ",".join(f'{start}"x{number}"{end}' for number in range(count))
    return f'{{"resourceType":"Bundle","type":"searchset","entry":[{entries}]}}'.encode()


def _hundred_thousand_entries(_: Any) -> Generated:
    entry = {"resource": {"resourceType": "Observation", "id": "@id", "status": "final"}}
    return Generated(body=_many(entry, 100_000), headers=_FHIR)


def _as_many_as_asked_for(asked: int) -> Callable[[Any], Generated]:
    def make(healthy: Any) -> Generated:
        like = healthy["entry"][0]["resource"]
        return Generated(body=_many({"resource": {**like, "id": "@id"}}, asked), headers=_FHIR)

    return make


def _with_byte_order_mark(healthy: Any) -> Generated:
    return Generated(body=b"\xef\xbb\xbf" + json.dumps(healthy).encode(), headers=_FHIR)


def _photo_of_five_megabytes(healthy: Any) -> Generated:
    [entry] = healthy["entry"]
    photo = [{"contentType": "image/jpeg", "data": "A" * (5 * _MEGABYTE)}]
    whole = {**healthy, "entry": [{**entry, "resource": {**entry["resource"], "photo": photo}}]}
    return Generated(body=json.dumps(whole).encode(), headers=_FHIR)


GENERATED: Mapping[str, Callable[[Any], Generated]] = {
    "gzip-bomb": _gzip_bomb,
    "200-megabytes": _two_hundred_megabytes,
    "100000-entries": _hundred_thousand_entries,
    "1000-entries": _as_many_as_asked_for(1000),
    "byte-order-mark": _with_byte_order_mark,
    "5-megabyte-photo": _photo_of_five_megabytes,
}
"""By name: from the healthy searchset to what is sent instead."""
