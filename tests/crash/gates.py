"""Gates in front of and behind every call of a port, found by introspection; one of them is where the process ends.

Classes are wrapped, not objects: whoever holds a store, and whichever class keeps it by the time this is read, its
public methods are the port's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployr_core.packet import Delivery, InferencePacket, Label
from deployr_serve.adapters.http import Request
from deployr_serve.adapters.sqlite_file import SqliteFile

BEFORE, AFTER = "before", "after"
_NOT_PORTS = frozenset({"Clock", "Models", "Subjects", "Credentials"})
"""They change nothing outside the process."""
_OURS = ("deployr_serve.", "label_extractors.", "function_app")


@dataclass(frozen=True, kw_only=True)
class End:
    """Where a process ends: the ``nth`` time that it comes to ``gate``; by SIGKILL, or by SIGSTOP for a while."""

    gate: str
    nth: int = 1
    by: str = "SIGKILL"


class Gates:
    """Counts who comes by, and ends the process at one of them."""

    def __init__(self, end: End | None, *, log: Path) -> None:
        self.passed: Counter[str] = Counter()
        self.files: tuple[SqliteFile, ...] = ()
        self._end = end
        self._log = log

    def pass_by(self, gate: str) -> None:
        """Count, and end here if it is time to; the last thing that a process does is to say where it ended."""
        self.passed[gate] += 1
        if self._end is not None and (gate, self.passed[gate]) == (self._end.gate, self._end.nth):
            append(self._log, gate)
            if self._end.by == "SIGSTOP":
                # What sleeps in the middle of somebody else's transaction holds the whole file, and whoever takes over
                # has no store at all: SQLite's own matter, and not what a gate is about.
                for file in self.files:
                    done = threading.Event()
                    file._thread.do(done.set)  # It does one thing after the other.
                    done.wait()
            os.kill(os.getpid(), getattr(signal, self._end.by))


def append(file: Path, line: str) -> None:
    """Add a line in one write, so that it is there whatever happens next."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def put_up(root: object, gates: Gates) -> None:
    """Put gates around the ports of everything that ``root`` holds."""
    gates.files = tuple(one for one in held(root) if isinstance(one, SqliteFile))
    ports = tuple(_ports())
    for cls in {type(one) for one in held(root)}:
        kept = [names for names in ports if names and all(hasattr(cls, name) for name in names)]
        for name in frozenset[str]().union(*kept):
            method = inspect.getattr_static(cls, name)
            if inspect.isfunction(method):
                setattr(cls, name, _gated(method, f"{cls.__name__}.{name}", gates))


def _ports() -> Iterator[frozenset[str]]:
    """Give the members of every Protocol that the product declares, as far as it is loaded."""
    for module_name, module in tuple(sys.modules.items()):
        if module_name.startswith(_OURS):
            for name, cls in vars(module).items():
                if getattr(cls, "_is_protocol", False) and cls.__module__ == module_name and name not in _NOT_PORTS:
                    yield frozenset(
                        each
                        for each, what in vars(cls).items()
                        if not each.startswith("_")
                        and each != "aclose"
                        and (inspect.isfunction(what) or isinstance(what, property))
                    )


def held(root: object) -> Iterator[object]:
    """Give every object of ours that can be reached from ``root`` without calling anything."""
    seen: set[int] = set()
    left = [root]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, tuple | list | set | frozenset):
            left += one
        elif inspect.ismethod(one):
            left.append(one.__self__)
        elif inspect.isfunction(one):
            left += [cell.cell_contents for cell in one.__closure__ or () if _is_filled(cell)]
        elif type(one).__module__.startswith(_OURS):
            yield one
            slots = [name for cls in type(one).__mro__ for name in getattr(cls, "__slots__", ())]
            left += [getattr(one, name, None) for name in slots if isinstance(name, str)]
            left += getattr(one, "__dict__", {}).values()


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 it is empty where a name is not bound yet
    except ValueError:
        return False
    return True


def _gated(method: Callable[..., Any], name: str, gates: Gates) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awaited(self: object, *arguments: Any, **named: Any) -> Any:
            gate = _gate(name, (*arguments, *named.values()))
            gates.pass_by(f"{gate} {BEFORE}")
            result = await method(self, *arguments, **named)
            gates.pass_by(f"{gate} {AFTER}")
            return result

        return awaited

    @functools.wraps(method)
    def called(self: object, *arguments: Any, **named: Any) -> Any:
        gate = _gate(name, arguments)
        gates.pass_by(f"{gate} {BEFORE}")
        result = method(self, *arguments, **named)
        gates.pass_by(f"{gate} {AFTER}")
        return result

    return called


def _gate(name: str, arguments: tuple[Any, ...]) -> str:
    """Name the transition: the call, and what of its argument tells one from another, without anybody's identity."""
    first = arguments[0] if arguments else None
    match first:
        case InferencePacket():
            detail = str(first.outcome.__struct_config__.tag)
        case Delivery():
            detail = str(first.state)
        case Label():
            detail = str(first.outcome.__struct_config__.tag)
        case Request():
            detail = f"{first.method} {'/'.join(first.url.partition('?')[0].rsplit('/', 2)[1:])}"
        case str() if "record" in name:
            detail = first
        case _:
            return name
    return f"{name} {detail}"


async def settle() -> None:
    """Let whatever was started and not awaited come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
