"""`python -m benchmarks.layers`: where the processor time of one inference goes, by layer."""

from __future__ import annotations

import asyncio
import cProfile
import functools
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import azure.functions as func
import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.hospital import Hospital, hospital
from benchmarks.patients import asked, write_patients
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK
from deployr_serve.blueprint import serving_blueprint

INFERENCES = 200
_WARM_UP = 20
_ELSEWHERE = "elsewhere"

_ADAPTERS = "/deployr_serve/adapters/"
_LAYERS: Mapping[str, tuple[str, ...]] = {
    "trigger: parse, render": ("/deployr_serve/triggers/", "/deployr_serve/blueprint", "/azure/functions/"),
    "use case, packet": ("/deployr_serve/core/", "/deployr_core/packet", _ADAPTERS),
    "transport": tuple(_ADAPTERS + name for name in ("http", "retry", "breaker", "lanes", "resilience")),
    "HTTP client": ("/aiohttp/", "/yarl/", "/multidict/", "/urllib/", "/aiohappyeyeballs/", "/http/", "/email/"),
    "auth": (*(_ADAPTERS + name for name in ("auth", "token_cache", "scopes", "lent_token", "client_")), "/jwt/"),
    "search, decode": (f"{_ADAPTERS}fhir_", f"{_ADAPTERS}fetch_once", f"{_ADAPTERS}group_reads"),
    "facts": (
        *(_ADAPTERS + name for name in ("fhir_facts", "fhir_medications", "identity", "epic_")),
        *(f"/deployr_core/{name}" for name in ("facts", "units", "instants", "codes")),
    ),
    "vectorize": tuple(f"/deployr_core/{name}" for name in ("vectorize", "layout", "declared", "features", "exact")),
    "coverage, score": ("/deployr_core/", "/treelite/"),
    "store": (f"{_ADAPTERS}sqlite_", f"{_ADAPTERS}memory_store", "/concurrent/futures/"),
    "write to the EMR": ("/deployr_serve/outputs/", f"{_ADAPTERS}epic.py"),
    "event loop": ("/asyncio/", "/selectors.py"),
}
"""Parts of file names, the longest that fits decides. A function of no layer counts for whoever called it."""

_Function = tuple[str, int, str]


def main() -> int:
    """Profile 200 inferences of a patient of 500 resources with an EMR that answers at once; print the table."""
    console = Console()
    charts = functools.partial(write_patients, patients=1, orders=_WARM_UP + 2 * INFERENCES)
    with hospital(charts, emr_delay_ms=0) as measured:
        total_ms, other_threads_ms, profile = asyncio.run(_profiled(measured))
    by_layer = shares(profile)
    table = Table(title=f"One inference: {total_ms:.2f} ms of processor time, mean of {INFERENCES}")
    table.add_column("layer")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for layer, share in sorted(by_layer.items(), key=lambda item: -item[1]):
        table.add_row(layer, f"{share * (total_ms - other_threads_ms):.2f}", f"{share:.0%}")
    table.add_row("other threads: SQLite and its encoding", f"{other_threads_ms:.2f}", "")
    console.print(table)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    return 0


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Give each layer's share of the profiled time."""
    stats: Mapping[_Function, tuple[int, int, float, float, Mapping[_Function, Any]]]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined] # not in typeshed
    spent: dict[str, float] = defaultdict(float)

    def give(function: _Function, seconds: float, seen: frozenset[_Function]) -> None:
        layer = _layer(function)
        callers = {} if layer or function in seen else stats[function][4]
        weights = {caller: figures[3] for caller, figures in callers.items() if caller != function}
        whole = sum(weights.values())
        if layer or not whole:
            spent[layer or _ELSEWHERE] += seconds
            return
        for caller, weight in weights.items():
            give(caller, seconds * weight / whole, seen | {function})

    for function, (_, _, own, _, _) in stats.items():
        if own:
            give(function, own, frozenset())
    whole = sum(spent.values())
    return {layer: seconds / whole for layer, seconds in spent.items()}


def _layer(function: _Function) -> str | None:
    fitting = [(len(part), layer) for layer, parts in _LAYERS.items() for part in parts if part in function[0]]
    return max(fitting)[1] if fitting else None


async def _profiled(measured: Hospital) -> tuple[float, float, cProfile.Profile]:
    """Give processor ms of one inference, what of it was in other threads, and the profile of as many again."""
    application = measured.application(DEPLOYR_EMR_VENDOR_BASE=measured.processes.emr)
    app = func.FunctionApp()
    app.register_functions(serving_blueprint(application, relay_schedule="0 0 0 1 1 *"))
    infer = {each.get_function_name(): each.get_user_function() for each in app.get_functions()}["infer"]
    try:
        for order in range(_WARM_UP):
            await _ask(infer, order)
        whole, own = time.process_time(), time.thread_time()
        for order in range(_WARM_UP, _WARM_UP + INFERENCES):
            await _ask(infer, order)
        whole, own = time.process_time() - whole, time.thread_time() - own
        profile = cProfile.Profile(time.thread_time)
        profile.enable()
        for order in range(_WARM_UP + INFERENCES, _WARM_UP + 2 * INFERENCES):
            await _ask(infer, order)
        profile.disable()
    finally:
        await application.aclose()
    return whole * 1000 / INFERENCES, (whole - own) * 1000 / INFERENCES, profile


async def _ask(infer: Callable[[func.HttpRequest], Awaitable[func.HttpResponse]], order: int) -> None:
    what = asked(0, order)
    body = {
        "patientId": what.patient_id,
        "encounterId": what.encounter_id,
        "orderId": what.order_id,
        "eventTime": NOW.isoformat(),
    }
    request = func.HttpRequest(
        "POST",
        f"/api/models/{TASK}/infer",
        headers={"Content-Type": "application/json"},
        route_params={"model": TASK},
        body=msgspec.json.encode(body),
    )
    answer = await infer(request)
    if answer.status_code != 200:
        raise RuntimeError(f"expected a score, got status {answer.status_code}")


if __name__ == "__main__":
    sys.exit(main())
