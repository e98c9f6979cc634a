"""The functions of a ``function_app.py``: imported, read and checked."""

import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.keys import AuthLevel

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class HttpFunction:
    """A function that answers HTTP requests.

    Attributes:
        route: below the route prefix, without outer slashes.
        methods: in capitals; None is every method.
        call: what the app's author wrote.
        parameter: the name under which ``call`` takes its request.
        takes_context: whether ``call`` has a parameter ``context``.
    """

    name: str
    route: str
    methods: frozenset[str] | None
    auth_level: AuthLevel
    call: Callable[..., Any]
    parameter: str
    takes_context: bool
    is_async: bool


@dataclass(frozen=True, kw_only=True)
class TimerFunction:
    """A function that runs on a schedule.

    Attributes:
        schedule: as written; ``ncrontab.parse_schedule`` reads it.
        call: what the app's author wrote.
        parameter: the name under which ``call`` takes its timer request.
        takes_context: whether ``call`` has a parameter ``context``.
    """

    name: str
    schedule: str
    run_on_startup: bool
    use_monitor: bool
    call: Callable[..., Any]
    parameter: str
    takes_context: bool
    is_async: bool


@dataclass(frozen=True, kw_only=True)
class QueueFunction:
    """A function that runs for each message of a queue.

    Attributes:
        queue: the queue's name.
        connection: the name of the setting that says where its queues are.
        call: what the app's author wrote.
        parameter: the name under which ``call`` takes its message.
        takes_context: whether ``call`` has a parameter ``context``.
    """

    name: str
    queue: str
    connection: str
    call: Callable[..., Any]
    parameter: str
    takes_context: bool
    is_async: bool


Function = HttpFunction | TimerFunction | QueueFunction


@dataclass(frozen=True, kw_only=True)
class LoadedApp:
    """What a host serves.

    Attributes:
        folder: where ``function_app.py`` and ``host.json`` are.
        functions: in the order in which the app defines them.
    """

    folder: Path
    functions: tuple[Function, ...]

    @property
    def http(self) -> tuple[HttpFunction, ...]:
        """Those that answer requests."""
        return tuple(each for each in self.functions if isinstance(each, HttpFunction))

    @property
    def timers(self) -> tuple[TimerFunction, ...]:
        """Those that run on a schedule."""
        return tuple(each for each in self.functions if isinstance(each, TimerFunction))

    @property
    def queued(self) -> tuple[QueueFunction, ...]:
        """Those that run for each message of a queue."""
        return tuple(each for each in self.functions if isinstance(each, QueueFunction))


class _Unsupported(Exception):
    """A trigger or binding that this host does not run."""


def load_app(path: Path, *, skip_unsupported: bool = False) -> LoadedApp:
    """Import a ``function_app.py`` and read its functions, those of its blueprints too.

    The module's code runs, with its folder first on ``sys.path`` and under its file's name, as on the real
    worker. Its functions are asked for once, because ``get_functions`` refuses a second time.

    Args:
        path: the file, or the folder that holds a ``function_app.py``.
        skip_unsupported: leave out, with a warning, what this host cannot run; else that is an error.

    Raises:
        HostSetupError: there is no such file, it cannot be imported, it defines no one app, or a function of
            it cannot be run here.

    Source: Microsoft Learn, "Python developer reference guide for Azure Functions", "Programming model" v2.
    """
    file = (path / "function_app.py" if path.is_dir() else path).resolve()
    app = find_app(_import(file), where=file)
    try:
        declared = app.get_functions()
    except (ValueError, TypeError) as error:
        raise HostSetupError(f"{file}: {error}") from error
    return LoadedApp(folder=file.parent, functions=_read(declared, skip_unsupported=skip_unsupported))


def find_app(module: ModuleType, *, where: Path) -> func.FunctionRegister:
    """The app of a module: the one called ``app``, else the only one it has.

    Raises:
        HostSetupError: there is none, or there are several and none is called ``app``.
    """
    found = {name: each for name, each in vars(module).items() if isinstance(each, func.FunctionRegister)}
    if not found:
        raise HostSetupError(f"{where}: expected a func.FunctionApp, such as `app = func.FunctionApp()`")
    if len(found) > 1:
        logger.warning("%s defines several apps (%s); Azure refuses that", where.name, ", ".join(sorted(found)))
    if "app" in found:
        return found["app"]
    distinct = list({id(each): each for each in found.values()}.values())
    if len(distinct) > 1:
        names = ", ".join(sorted(found))
        raise HostSetupError(f"{where}: expected one func.FunctionApp, or one called app; found {names}")
    return distinct[0]


def _import(file: Path) -> ModuleType:
    if not file.is_file():
        raise HostSetupError(f"{file}: expected a function_app.py, found no such file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise HostSetupError(f"{file}: expected a Python file")
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # Whatever the app's own code raises while it is imported: its traceback stays attached.
        sys.modules.pop(file.stem, None)
        raise HostSetupError(f"{file}: could not be imported: {type(error).__name__}: {error}") from error
    return module


def _read(declared: Iterable[func.Function], *, skip_unsupported: bool) -> tuple[Function, ...]:
    functions: list[Function] = []
    unsupported: list[str] = []
    for each in declared:
        try:
            functions.append(_function(each))
        except _Unsupported as reason:
            unsupported.append(str(reason))
    if unsupported and not skip_unsupported:
        raise HostSetupError("; ".join(unsupported) + " (--skip-unsupported leaves such functions out of a local run)")
    for each_reason in unsupported:
        logger.warning("%s: left out of this run", each_reason)
    names = [each.name.lower() for each in functions]
    for name in names:
        if names.count(name) > 1:
            raise HostSetupError(f"function {name}: expected a name of its own; Azure ignores capitals in it")
    return tuple(functions)


def _function(declared: func.Function) -> Function:
    name = str(declared.get_function_name())
    if not _NAME.fullmatch(name) or name.lower() == "host":
        raise HostSetupError(
            f"function {name}: expected a name of letters, digits, _ and - that begins with a letter, "
            'at most 128 long, and is not "host"'
        )
    declared_trigger = declared.get_trigger()
    if declared_trigger is None:
        raise HostSetupError(f"function {name}: expected a trigger")
    trigger: Mapping[str, Any] = declared_trigger.get_dict_repr()
    others = [each.get_dict_repr() for each in declared.get_bindings() if each is not declared_trigger]
    match str(trigger["type"]):
        case "httpTrigger":
            _refuse(name, [each for each in others if (each["type"], each["name"]) != ("http", "$return")])
            return _http_function(name, trigger, declared.get_user_function())
        case "timerTrigger":
            _refuse(name, others)
            return _timer_function(name, trigger, declared.get_user_function())
        case "queueTrigger":
            _refuse(name, others)
            return _queue_function(name, trigger, declared.get_user_function())
        case other:
            raise _Unsupported(
                f"function {name}: trigger {other} is not supported here, only httpTrigger, timerTrigger, queueTrigger"
            )


def _refuse(name: str, bindings: Iterable[Mapping[str, Any]]) -> None:
    for each in bindings:
        raise _Unsupported(f"function {name}: binding {each['type']} (parameter {each['name']}) is not supported here")


def _http_function(name: str, trigger: Mapping[str, Any], call: Callable[..., Any]) -> HttpFunction:
    methods = frozenset(_text(method).upper() for method in trigger.get("methods") or ())
    parameter = str(trigger["name"])
    return HttpFunction(
        name=name,
        route=str(trigger.get("route") or name).strip("/"),
        methods=methods or None,
        auth_level=AuthLevel(_text(trigger.get("authLevel") or AuthLevel.FUNCTION).lower()),
        call=call,
        parameter=parameter,
        takes_context=_takes_context(name, call, parameter=parameter),
        is_async=inspect.iscoroutinefunction(call),
    )


def _timer_function(name: str, trigger: Mapping[str, Any], call: Callable[..., Any]) -> TimerFunction:
    parameter = str(trigger["name"])
    return TimerFunction(
        name=name,
        schedule=str(trigger["schedule"]),
        run_on_startup=bool(trigger.get("runOnStartup", False)),
        use_monitor=trigger.get("useMonitor") is not False,
        call=call,
        parameter=parameter,
        takes_context=_takes_context(name, call, parameter=parameter),
        is_async=inspect.iscoroutinefunction(call),
    )


def _queue_function(name: str, trigger: Mapping[str, Any], call: Callable[..., Any]) -> QueueFunction:
    parameter = str(trigger["name"])
    return QueueFunction(
        name=name,
        queue=str(trigger["queueName"]),
        connection=str(trigger.get("connection") or "AzureWebJobsStorage"),
        call=call,
        parameter=parameter,
        takes_context=_takes_context(name, call, parameter=parameter),
        is_async=inspect.iscoroutinefunction(call),
    )


def _takes_context(name: str, call: Callable[..., Any], *, parameter: str) -> bool:
    """Whether a function wants its invocation's context; its other parameters must be bound.

    Source: azure-functions-python-worker, ``functions.py`` (Registry.validate_function_params).
    """
    parameters = inspect.signature(call).parameters
    if parameter not in parameters:
        raise HostSetupError(f"function {name}: expected a parameter {parameter}, which its trigger names")
    unbound = sorted(set(parameters) - {parameter, "context"})
    if unbound:
        raise HostSetupError(f"function {name}: no binding gives its parameter {unbound[0]} a value")
    return "context" in parameters


def _text(value: object) -> str:
    """The value of an enumeration's member, or the text itself: the decorators take both."""
    return str(value.value) if isinstance(value, Enum) else str(value)
