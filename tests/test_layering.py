"""Who may import whom: architecture.md's table, enforced on the source text of every module.

A module belongs to the area with the longest name that begins its own. Imports inside functions, under TYPE_CHECKING,
relative ones and `importlib.import_module("...")` count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

OURS = (
    "deployr_core",
    "deployr_dev",
    "deployr_serve",
    "label_extractors",
    "deployr_plots",
    "deployr_dash",
    "deployr_cli",
    "mock_emr",
    "benchmarks",
    "function_app",
)

INPUT_AND_OUTPUT = frozenset(
    {
        "aiohttp",
        "requests",
        "httpx",
        "urllib3",
        "urllib.request",
        "http.client",
        "http.server",
        "socket",
        "ssl",
        "sqlite3",
        "duckdb",
        "os",
        "io",
        "pathlib",
        "shutil",
        "tempfile",
        "glob",
        "subprocess",
        "threading",
        "multiprocessing",
        "time",
        "random",
        "secrets",
    }
)
"""What a pure module has no use for: network, disk, processes, clock and chance."""

TRAINING_ONLY = frozenset({"pandas", "sklearn", "joblib", "pickle"})
"""Slow to import, or able to run code when they load something: kept out of whatever the function app imports."""

NUMBERS = frozenset({"numpy", "msgspec"})


@dataclass(frozen=True, kw_only=True)
class Area:
    """What one area may import.

    ``ours``: areas of ours beside itself. ``others``: the packages from outside the standard library; None leaves them
    open. ``banned``: never, whatever the rest says. ``pure``: opens nothing and prints nothing, and imports nothing of
    `INPUT_AND_OUTPUT`. ``azure_functions``: may know the host's programming model. ``dynamic``: may import by a name
    that is only known when it runs.
    """

    ours: tuple[str, ...] = ()
    others: frozenset[str] | None = None
    banned: frozenset[str] = field(default_factory=frozenset)
    pure: bool = False
    azure_functions: bool = False
    dynamic: bool = False


CORE = ("deployr_core", "deployr_serve.core")
SETTING_VALUES = ("deployr_serve.auth_settings", "deployr_serve.setting_values")

AREAS = {
    "deployr_core": Area(
        ours=(
            "deployr_core.signing",
            "deployr_core.strict_yaml",
            "deployr_core.fhirpath",
            "deployr_core.document_reading",
        ),
        others=NUMBERS | {"treelite"},
        banned=TRAINING_ONLY,
        pure=True,
    ),
    # Training signs and serving verifies: both need the one definition, and it is bytes in, bytes out.
    "deployr_core.signing": Area(others=NUMBERS | {"cryptography"}, banned=TRAINING_ONLY, pure=True),
    # Tasks and deployments are YAML of one strict reading: bytes in, declared shape out.
    "deployr_core.strict_yaml": Area(others=NUMBERS | {"yaml"}, banned=TRAINING_ONLY, pure=True),
    # A label rule may be an expression: checked where tasks are read, evaluated in service. Resources in, answer out.
    "deployr_core.fhirpath": Area(
        ours=("deployr_core",), others=NUMBERS | {"fhirpathpy", "antlr4"}, banned=TRAINING_ONLY, pure=True
    ),
    # Training and serving must read a note or a picture alike: bytes in, text or pixels out.
    "deployr_core.document_reading": Area(
        others=NUMBERS | {"lxml", "PIL"}, banned=TRAINING_ONLY | (INPUT_AND_OUTPUT - {"io"})
    ),
    # Distributions and regressions, each imported where it is used; serving never comes here.
    "deployr_core.monitoring": Area(
        ours=("deployr_core",), others=NUMBERS | {"scipy", "statsmodels"}, banned=TRAINING_ONLY, pure=True
    ),
    "deployr_dev": Area(ours=("deployr_core", "deployr_core.monitoring", "deployr_plots")),
    # Descriptions of figures, and the one place that knows a drawing library.
    "deployr_plots": Area(ours=("deployr_core",), others=frozenset({"numpy", "matplotlib"}), banned=TRAINING_ONLY),
    "deployr_serve.core": Area(ours=("deployr_core",), others=NUMBERS, banned=TRAINING_ONLY, pure=True),
    "deployr_serve.triggers": Area(
        ours=(*CORE, "deployr_serve.triggers.bpa_xml"), others=NUMBERS, banned=TRAINING_ONLY, pure=True
    ),
    # The one place that parses XML from callers: bytes in, elements out, with all that could fetch switched off.
    "deployr_serve.triggers.bpa_xml": Area(ours=CORE, others=frozenset({"lxml"}), banned=TRAINING_ONLY, pure=True),
    "deployr_serve.outputs": Area(ours=CORE, others=NUMBERS, banned=TRAINING_ONLY, pure=True),
    # An adapter that writes to the EMR calls the pure renderer of what it writes; the arrows still point inwards.
    "deployr_serve.adapters": Area(
        ours=(*CORE, "deployr_serve.outputs", "deployr_serve.adapters.pickled", "deployr_serve.storage_limits"),
        banned=TRAINING_ONLY,
    ),
    # The one place in serving that deserialises a joblib file, after its digest, and only where the site allows it.
    "deployr_serve.adapters.pickled": Area(ours=CORE, banned=TRAINING_ONLY - {"joblib", "pickle"}),
    "deployr_serve.auth_settings": Area(ours=(*CORE, "deployr_serve.setting_values"), banned=TRAINING_ONLY),
    "deployr_serve.vendor_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    # A worklist's query goes through whatever DB-API driver the site names.
    "deployr_serve.adapters.worklist_reports": Area(ours=CORE, banned=TRAINING_ONLY, dynamic=True),
    # Chunks are put where the host's queue trigger takes them from.
    "deployr_serve.adapters.queues": Area(ours=(*CORE, "deployr_serve.local_host.queue_file"), banned=TRAINING_ONLY),
    "deployr_serve.batch_settings": Area(ours=(*CORE, "deployr_serve.auth_settings"), banned=TRAINING_ONLY),
    "deployr_serve.batch_bootstrap": Area(
        ours=(
            *CORE,
            "deployr_serve.batch_settings",
            "deployr_serve.vendor_bootstrap",
            "deployr_serve.adapters",
            "deployr_serve.adapters.worklist_reports",
            "deployr_serve.adapters.queues",
            "deployr_serve.local_host.queue_storage",
        ),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.setting_values": Area(banned=TRAINING_ONLY),
    "deployr_serve.cds_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.cds_bootstrap": Area(
        ours=(*CORE, "deployr_serve.cds_settings", "deployr_serve.adapters", "deployr_serve.triggers"),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.audit_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.audit_bootstrap": Area(
        ours=(*CORE, "deployr_serve.audit_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.blueprint_audit": Area(
        ours=(*CORE, "deployr_serve.audit_bootstrap", "deployr_serve.audit_settings"),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.label_settings": Area(ours=(*CORE, "deployr_serve.auth_settings"), banned=TRAINING_ONLY),
    "deployr_serve.json_settings": Area(ours=(*CORE, "deployr_serve.auth_settings"), banned=TRAINING_ONLY),
    "deployr_serve.registry_settings": Area(
        ours=(*CORE, *SETTING_VALUES, "deployr_serve.json_settings"), banned=TRAINING_ONLY
    ),
    "deployr_serve.registry_bootstrap": Area(
        ours=(*CORE, "deployr_serve.registry_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.bundle_bootstrap": Area(
        ours=(*CORE, "deployr_serve.settings", "deployr_serve.vendor_bootstrap", "deployr_serve.adapters"),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.shadow_bootstrap": Area(ours=(*CORE, "deployr_serve.adapters"), banned=TRAINING_ONLY),
    "deployr_serve.blueprint_models": Area(
        ours=(*CORE, "deployr_serve.bootstrap", "deployr_serve.registry_bootstrap", "deployr_serve.triggers"),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.json_bootstrap": Area(
        ours=(*CORE, "deployr_serve.json_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    # A stylesheet and XPaths are compiled when the app starts, so that it does not start with wrong ones.
    "deployr_serve.bpa_settings": Area(
        ours=(*CORE, *SETTING_VALUES, "deployr_serve.triggers"),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.outputs_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.outputs_bootstrap": Area(
        ours=(*CORE, "deployr_serve.outputs_settings", "deployr_serve.adapters", "deployr_serve.outputs"),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.store_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.store_bootstrap": Area(
        ours=(*CORE, "deployr_serve.store_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.spool_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.spool_bootstrap": Area(
        ours=(*CORE, "deployr_serve.spool_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.facts_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.facts_bootstrap": Area(
        ours=(*CORE, "deployr_serve.facts_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.alert_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.alert_bootstrap": Area(
        ours=(
            *CORE,
            "deployr_serve.alert_settings",
            "deployr_serve.settings",
            "deployr_serve.bootstrap",
            "deployr_serve.adapters",
            "deployr_serve.outputs",
        ),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.blueprint_alerts": Area(ours=CORE, banned=TRAINING_ONLY, azure_functions=True),
    "deployr_serve.telemetry_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.telemetry_bootstrap": Area(
        ours=(*CORE, "deployr_serve.telemetry_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.predictor_settings": Area(ours=(*CORE, *SETTING_VALUES), banned=TRAINING_ONLY),
    "deployr_serve.predictor_bootstrap": Area(
        ours=(*CORE, "deployr_serve.predictor_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.blueprint_facts": Area(ours=CORE, banned=TRAINING_ONLY, azure_functions=True),
    "deployr_serve.settings": Area(
        ours=(
            *CORE,
            "deployr_serve.facts_settings",
            "deployr_serve.store_settings",
            "deployr_serve.spool_settings",
            "deployr_serve.outputs_settings",
            "deployr_serve.alert_settings",
            "deployr_serve.audit_settings",
            "deployr_serve.auth_settings",
            "deployr_serve.batch_settings",
            "deployr_serve.bpa_settings",
            "deployr_serve.cds_settings",
            "deployr_serve.setting_values",
            "deployr_serve.json_settings",
            "deployr_serve.registry_settings",
            "deployr_serve.label_settings",
            "deployr_serve.predictor_settings",
            "deployr_serve.telemetry_settings",
            "deployr_serve.vendor_settings",
        ),
        banned=TRAINING_ONLY,
    ),
    # What no two sites may share: their settings in, problems out.
    "deployr_serve.sites_apart": Area(
        ours=(*CORE, "deployr_serve.settings", "deployr_serve.store_settings"), banned=TRAINING_ONLY
    ),
    # A site's file is a local.settings.json, which the local host knows how to read.
    "deployr_serve.sites_settings": Area(
        ours=(*CORE, "deployr_serve.settings", "deployr_serve.sites_apart", "deployr_serve.local_host"),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.blueprint_sites": Area(
        ours=(
            *CORE,
            "deployr_serve.settings",
            "deployr_serve.bootstrap",
            "deployr_serve.sites_settings",
        ),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.auth_bootstrap": Area(
        ours=(*CORE, "deployr_serve.auth_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.vendor_bootstrap": Area(
        ours=(*CORE, "deployr_serve.vendor_settings", "deployr_serve.adapters"), banned=TRAINING_ONLY
    ),
    "deployr_serve.bootstrap": Area(
        ours=(
            *CORE,
            "deployr_serve.settings",
            "deployr_serve.store_bootstrap",
            "deployr_serve.spool_bootstrap",
            "deployr_serve.facts_bootstrap",
            "deployr_serve.audit_bootstrap",
            "deployr_serve.telemetry_bootstrap",
            "deployr_serve.auth_bootstrap",
            "deployr_serve.batch_bootstrap",
            "deployr_serve.vendor_bootstrap",
            "deployr_serve.outputs_bootstrap",
            "deployr_serve.cds_bootstrap",
            "deployr_serve.json_bootstrap",
            "deployr_serve.registry_bootstrap",
            "deployr_serve.bundle_bootstrap",
            "deployr_serve.shadow_bootstrap",
            "deployr_serve.predictor_bootstrap",
            "deployr_serve.adapters",
            "deployr_serve.triggers",
            "deployr_serve.outputs",
        ),
        banned=TRAINING_ONLY,
    ),
    "deployr_serve.blueprint": Area(
        ours=(
            *CORE,
            "deployr_serve.settings",
            "deployr_serve.bootstrap",
            "deployr_serve.triggers",
            "deployr_serve.outputs",
        ),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.blueprint_cds": Area(
        ours=(*CORE, "deployr_serve.bootstrap", "deployr_serve.cds_bootstrap", "deployr_serve.triggers"),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.blueprint_batch": Area(
        ours=(*CORE, "deployr_serve.batch_bootstrap"), banned=TRAINING_ONLY, azure_functions=True
    ),
    "deployr_serve.blueprint_bpa": Area(
        ours=(*CORE, "deployr_serve.bootstrap", "deployr_serve.bpa_settings", "deployr_serve.triggers"),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
    "deployr_serve.blueprint_pages": Area(
        ours=(*CORE, "deployr_serve.bootstrap", "deployr_serve.triggers"), banned=TRAINING_ONLY, azure_functions=True
    ),
    "deployr_serve.local_host": Area(
        ours=("deployr_serve.local_host.queue_file", "deployr_serve.local_host.queue_storage"),
        banned=TRAINING_ONLY,
        azure_functions=True,
        dynamic=True,
    ),
    # The host's queues are a service of the platform: the app puts messages into them, as into Azure's.
    "deployr_serve.local_host.queue_file": Area(banned=TRAINING_ONLY),
    "deployr_serve.local_host.queue_storage": Area(
        ours=("deployr_serve.local_host.queue_file", "deployr_serve.storage_limits"), banned=TRAINING_ONLY
    ),
    "deployr_serve.storage_limits": Area(banned=TRAINING_ONLY),
    "label_extractors": Area(
        ours=(*CORE, "deployr_serve.label_settings"), others=NUMBERS, banned=TRAINING_ONLY, pure=True
    ),
    "label_extractors.blueprint": Area(
        ours=(*CORE, "deployr_serve.label_settings", "label_extractors"), banned=TRAINING_ONLY, azure_functions=True
    ),
    "deployr_dash": Area(ours=(*CORE, "deployr_plots", "deployr_dash")),
    # Tables of packets in, figures and words out.
    "deployr_dash.panels": Area(
        ours=(
            "deployr_core",
            "deployr_plots",
            *(f"deployr_dash.{name}" for name in ("held_out", "planned", "readings", "sketches")),
        ),
        others=NUMBERS | {"pandas"},
        banned=TRAINING_ONLY - {"pandas"},
        pure=True,
    ),
    **{
        f"deployr_dash.{name}": Area(
            ours=("deployr_core",), others=NUMBERS | {"pandas"}, banned=TRAINING_ONLY - {"pandas"}, pure=True
        )
        for name in ("held_out", "planned", "readings", "sketches")
    },
    "deployr_cli": Area(
        ours=(*(name for name in OURS if name != "deployr_cli"), "deployr_cli.doctor.decide"),
        azure_functions=True,
        dynamic=True,
    ),
    # What `deployr doctor` makes of the answers: it calls nothing, and reads what the adapters read purely.
    "deployr_cli.doctor.decide": Area(
        ours=(*CORE, "deployr_serve.adapters"), others=NUMBERS, banned=TRAINING_ONLY, pure=True
    ),
    "mock_emr": Area(),
    # Outside the product, like the tests: they measure what the command runs.
    "benchmarks": Area(ours=OURS, azure_functions=True, dynamic=True),
    "function_app": Area(
        ours=(
            "deployr_serve.settings",
            "deployr_serve.bootstrap",
            "deployr_serve.alert_bootstrap",
            "deployr_serve.blueprint",
            "deployr_serve.blueprint_alerts",
            "deployr_serve.blueprint_audit",
            "deployr_serve.blueprint_batch",
            "deployr_serve.blueprint_bpa",
            "deployr_serve.blueprint_cds",
            "deployr_serve.blueprint_facts",
            "deployr_serve.blueprint_models",
            "deployr_serve.blueprint_pages",
            "deployr_serve.blueprint_sites",
            "deployr_serve.sites_settings",
            "label_extractors.blueprint",
        ),
        banned=TRAINING_ONLY,
        azure_functions=True,
    ),
}


def violations(source: str, module: str) -> list[str]:
    """Name what a module does against the table, as ``file:line: rule``.

    Args:
        source: the module's text.
        module: its dotted name; that of a package's own file ends in ``.__init__``.
    """
    file = f"{module.replace('.', '/')}.py"
    name = area_of(module)
    if name is None:
        return [f"{file}:1: belongs to no area of the table in tests/test_layering.py"]
    found: set[tuple[int, str]] = set()
    tree = ast.parse(source)
    for line, imported in _imports(tree, module):
        found |= {(line, rule) for rule in _broken_rules(imported, name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and AREAS[name].pure and _called(node) in {"open", "print", "builtins.open"}:
            found.add((node.lineno, f"{name} is pure: it must not call {_called(node)}()"))
        if _imports_by_unknown_name(node) and not AREAS[name].dynamic:
            found.add((node.lineno, f"{name} must import by names that can be read in the source"))
    return [f"{file}:{line}: {rule}" for line, rule in sorted(found)]


def area_of(module: str) -> str | None:
    """Give the area with the longest name that begins the module's."""
    return max((name for name in AREAS if _within(module, name)), key=len, default=None)


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _broken_rules(imported: str, name: str) -> Iterator[str]:
    area = AREAS[name]
    root = imported.partition(".")[0]
    if root in OURS:
        target = area_of(imported)
        allowed = target == name or (target is not None and any(_within(target, ours) for ours in area.ours))
        if not allowed:
            yield f"{name} must not import {target or imported} ({imported})"
        return
    never = area.banned | (INPUT_AND_OUTPUT if area.pure else frozenset())
    banned = next((package for package in sorted(never) if _within(imported, package)), None)
    if banned:
        yield f"{name} must not import {banned} ({imported})"
    elif _within(imported, "azure.functions") and not area.azure_functions:
        yield f"{name} must not import azure.functions: only blueprints, function_app.py and local_host do"
    elif area.others is not None and root not in area.others | sys.stdlib_module_names:
        yield f"{name} must not import {root}: of other people's packages only {', '.join(sorted(area.others))}"


def _imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Give each import's line and absolute name; ``from a import b`` gives ``a.b``, which may be a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                base = _absolute("." * node.level + (node.module or ""), module)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            case ast.Call(args=[ast.Constant(value=str(target)), *rest]) if _is_importer(node):
                package = next((each.value for each in rest if isinstance(each, ast.Constant)), None)
                keyword = next((each.value for each in node.keywords if each.arg == "package"), None)
                package = keyword.value if isinstance(keyword, ast.Constant) else package
                yield node.lineno, _absolute(target, f"{package}.x" if isinstance(package, str) else module)


def _absolute(target: str, module: str) -> str:
    level = len(target) - len(target.lstrip("."))
    if not level:
        return target
    return ".".join([*module.split(".")[:-level], *filter(None, [target[level:]])])


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def _is_importer(node: ast.Call) -> bool:
    return _called(node).rpartition(".")[2] in {"import_module", "__import__"}


def _imports_by_unknown_name(node: ast.AST) -> bool:
    match node:
        case ast.Call(args=[ast.Constant(value=str()), *_]):
            return False
        case ast.Call():
            return _is_importer(node)
        case ast.ImportFrom(module="importlib"):
            # Under another name it could not be followed.
            return any(alias.name == "import_module" and alias.asname for alias in node.names)
    return False


def modules() -> Iterator[tuple[str, Path]]:
    """Give the name and file of every module of ours in the work tree."""
    for top in OURS:
        files = [ROOT / f"{top}.py"] if (ROOT / f"{top}.py").exists() else sorted((ROOT / top).rglob("*.py"))
        for file in files:
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts), file


def test_every_import_is_one_that_the_table_allows() -> None:
    found = [
        complaint
        for module, file in modules()
        if not _is_package_root(module)
        for complaint in violations(file.read_text(encoding="utf-8"), module)
    ]
    assert not found, "\n" + "\n".join(found)


def _is_package_root(module: str) -> bool:
    """A package file holds a docstring only, which another test sees to; it needs no area."""
    return module.endswith(".__init__")


def test_every_package_of_ours_is_in_the_table() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages <= set(OURS)
    assert {module.partition(".")[0] for module, _ in modules()} >= {"deployr_core", "deployr_serve", "mock_emr"}


def holds_a_docstring_only(source: str) -> bool:
    body = ast.parse(source).body
    return len(body) == 1 and isinstance(body[0], ast.Expr) and ast.get_docstring(ast.parse(source)) is not None


def test_package_files_hold_a_docstring_only() -> None:
    packages = {module: file for module, file in modules() if _is_package_root(module)}
    assert packages
    assert [m for m, file in packages.items() if not holds_a_docstring_only(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "source", ["", "x = 1", '"""Doc."""\nimport os', "# Only a comment", '"""Doc."""\n__all__ = []']
)
def test_a_package_file_with_anything_else_is_caught(source: str) -> None:
    assert not holds_a_docstring_only(source)


PLANTED = {
    "scipy, outside of monitoring": (
        "deployr_core.metrics",
        "from scipy.special import chdtrc",
        "deployr_core must not import scipy",
    ),
    "monitoring, in the rest of the core": (
        "deployr_core.metrics",
        "from deployr_core.monitoring import drift",
        "deployr_core must not import deployr_core.monitoring",
    ),
    "an adapter, in a trigger": (
        "deployr_serve.triggers.planted",
        "from deployr_serve.adapters.http import Session",
        "deployr_serve.triggers must not import deployr_serve.adapters (deployr_serve.adapters.http.Session)",
    ),
    "an adapter, as a name of its package": (
        "deployr_serve.triggers.planted",
        "from deployr_serve import adapters",
        "must not import deployr_serve.adapters",
    ),
    "an adapter, all of it": (
        "deployr_serve.core.planted",
        "from deployr_serve.adapters import *",
        "must not import deployr_serve.adapters",
    ),
    "an adapter, relative": (
        "deployr_serve.triggers.planted",
        "from ..adapters import http",
        "must not import deployr_serve.adapters (deployr_serve.adapters.http)",
    ),
    "an adapter, relative by name": (
        "deployr_serve.outputs.planted",
        "from .. import adapters",
        "must not import deployr_serve.adapters",
    ),
    "an adapter, under a false name": (
        "deployr_serve.triggers.planted",
        "import deployr_serve.adapters.http as core",
        "must not import deployr_serve.adapters",
    ),
    "an adapter, by importlib": (
        "deployr_serve.triggers.planted",
        'import importlib\nimportlib.import_module("deployr_serve.adapters.http")',
        "must not import deployr_serve.adapters",
    ),
    "an adapter, by importlib and relative": (
        "deployr_serve.triggers.planted",
        'from importlib import import_module\nimport_module("..adapters.http", package="deployr_serve.triggers")',
        "must not import deployr_serve.adapters (deployr_serve.adapters.http)",
    ),
    "an adapter, by __import__": (
        "deployr_serve.blueprint",
        '__import__("deployr_serve.adapters.http")',
        "must not import deployr_serve.adapters",
    ),
    "something, by a name put together": (
        "deployr_serve.triggers.planted",
        'import importlib\nimportlib.import_module("deployr_serve." + "adapters.http")',
        "by names that can be read",
    ),
    "importlib, under a false name": (
        "deployr_serve.triggers.planted",
        "from importlib import import_module as ordinary",
        "by names that can be read",
    ),
    "the root of the serving side": (
        "deployr_serve.core.planted",
        "import deployr_serve",
        "must not import deployr_serve",
    ),
    "sklearn, in serving": (
        "deployr_serve.adapters.models",
        "def load():\n    import sklearn.ensemble",
        "must not import sklearn",
    ),
    "pandas, for types only": (
        "deployr_serve.bootstrap",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pandas import DataFrame",
        "must not import pandas",
    ),
    "sklearn, in the core": (
        "deployr_core.planted",
        "from sklearn import metrics",
        "deployr_core must not import sklearn",
    ),
    "another package, in the core": ("deployr_core.planted", "import duckdb", "must not import duckdb"),
    "a package that nobody thought of": ("deployr_core.planted", "import polars", "only msgspec, numpy, treelite"),
    "cryptography, in the core": ("deployr_core.bundle", "import cryptography", "only msgspec, numpy, treelite"),
    "the disk, where signatures are checked": ("deployr_core.signing", "import os", "must not import os"),
    "joblib, in an adapter": ("deployr_serve.adapters.models", "def f():\n    import joblib", "must not import joblib"),
    "the disk, in the core": ("deployr_core.planted", "from pathlib import Path", "must not import pathlib"),
    "the environment, in an output": ("deployr_serve.outputs.planted", "import os.path", "must not import os"),
    "the network, in a trigger": ("deployr_serve.triggers.planted", "import urllib.request", "urllib.request"),
    "the network, as a name": ("deployr_serve.triggers.planted", "from urllib import request", "urllib.request"),
    "an opened file, in a pure module": ("label_extractors.rules", 'x = open("x")', "must not call open()"),
    "a print, in a pure module": ("deployr_serve.core.infer", "def f():\n    print(1)", "must not call print()"),
    "serving, in training": ("deployr_dev.planted", "import deployr_serve.core.ports", "deployr_dev must not import"),
    "training, in serving": ("deployr_serve.adapters.planted", "from deployr_dev import training", "deployr_dev"),
    "serving, in the core": ("deployr_core.planted", "import deployr_serve.core.ports", "deployr_core must not import"),
    "a trigger, in an output": (
        "deployr_serve.outputs.planted",
        "import deployr_serve.triggers.json_request",
        "triggers",
    ),
    "the settings, in the use case": ("deployr_serve.core.planted", "import deployr_serve.settings", "settings"),
    "the bootstrap, in an adapter": ("deployr_serve.adapters.planted", "import deployr_serve.bootstrap", "bootstrap"),
    "the host's model, in a trigger": ("deployr_serve.triggers.planted", "import azure.functions", "azure.functions"),
    "the host's model, in an adapter": (
        "deployr_serve.adapters.planted",
        "from azure import functions",
        "azure.functions",
    ),
    "the host's model, in a label rule": (
        "label_extractors.rules",
        "import azure.functions as func",
        "azure.functions",
    ),
    "the product, in the local host": (
        "deployr_serve.local_host.planted",
        "import deployr_core.bundle",
        "deployr_core",
    ),
    "serving, in the local host": ("deployr_serve.local_host.planted", "import deployr_serve.blueprint", "blueprint"),
    "an adapter, in the labels": ("label_extractors.collect", "import deployr_serve.adapters.fhir_source", "adapters"),
    "a bootstrap, in the labels": ("label_extractors.blueprint", "import deployr_serve.bootstrap", "bootstrap"),
    "a file, in a panel": ("deployr_dash.panels.planted", "from pathlib import Path", "must not import pathlib"),
    "the store's reader, in a panel": (
        "deployr_dash.panels.planted",
        "from deployr_dash.loading import load_frame",
        "deployr_dash.panels must not import deployr_dash",
    ),
    "the pages' library, in a panel": ("deployr_dash.panels.planted", "import streamlit", "must not import streamlit"),
    "an adapter, in the dashboard": ("deployr_dash.pages", "import deployr_serve.adapters.sqlite_store", "adapters"),
    "an adapter, in the function app": ("function_app", "import deployr_serve.adapters.clock", "adapters"),
    "the command, in serving": (
        "deployr_serve.bootstrap",
        "from deployr_cli import main",
        "must not import deployr_cli",
    ),
    "the mock, in serving": (
        "deployr_serve.adapters.planted",
        "from mock_emr import serve",
        "must not import mock_emr",
    ),
    "the mock, in training": ("deployr_dev.planted", "import mock_emr.population.generate", "must not import mock_emr"),
    "the product, in the mock": (
        "mock_emr.planted",
        "from deployr_core.codes import LOINC",
        "mock_emr must not import",
    ),
    "a module without an area": ("deployr_serve.helpers", "import json", "belongs to no area"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_caught_with_file_line_and_rule(planted: str) -> None:
    module, source, rule = PLANTED[planted]
    (complaint,) = violations(source, module)
    line = 1 if "no area" in rule else source.count("\n") + 1
    assert complaint.startswith(f"{module.replace('.', '/')}.py:{line}: ")
    assert rule in complaint


ALLOWED = {
    "the core, in an adapter": ("deployr_serve.adapters.http", "from deployr_serve.core.errors import EmrTimeout"),
    "a sibling, relative": ("deployr_serve.adapters.http", "from . import clock"),
    "an adapter, in the bootstrap": ("deployr_serve.bootstrap", "from deployr_serve.adapters.http import Session"),
    "training, by the command": ("deployr_cli.main", "def f():\n    import deployr_dev.training, sklearn"),
    "the mock, by the command": ("deployr_cli.main", "from mock_emr import serve"),
    "the command, in a benchmark": ("benchmarks.startup", "from deployr_cli.demo.run import TASK"),
    "the command's own": ("deployr_cli.main", "from deployr_cli import demo"),
    "the host's model, in a blueprint": ("label_extractors.blueprint", "import azure.functions as func"),
    "the database, in an adapter": ("deployr_serve.adapters.cosmos", "from azure.cosmos import aio"),
    "parsing of URLs, in a trigger": ("deployr_serve.triggers.json_request", "from urllib.parse import urlsplit"),
    "scipy, in monitoring": ("deployr_core.monitoring.drift", "def f():\n    from scipy.special import chdtrc"),
    "monitoring, in training": (
        "deployr_dev.training",
        "from deployr_core.monitoring.more_outcomes import performance",
    ),
    "treelite, where a model is scored": ("deployr_core.scoring", "def f():\n    import treelite"),
    "joblib, in the one adapter for it": ("deployr_serve.adapters.pickled", "def f():\n    import joblib"),
    "cryptography, where signatures are checked": ("deployr_core.signing", "def f():\n    import cryptography"),
    "something called like print": ("deployr_core.units", "table.print(1)"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_table_allows_is_not_complained_of(case: str) -> None:
    module, source = ALLOWED[case]
    assert violations(source, module) == []


def imported_by(program: str) -> set[str]:
    """Run a program in a fresh interpreter; give the top packages that it has imported by its end."""
    reported = f"{program}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    finished = subprocess.run(
        [sys.executable, "-c", reported], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(finished.stdout.split())


HEAVY = {"azure", "pandas", "sklearn", "aiohttp", "duckdb", "scipy", "treelite"}


def test_importing_the_whole_core_imports_nothing_heavy() -> None:
    names = [module for module, _ in modules() if module.startswith("deployr_core.") and not _is_package_root(module)]
    assert len(names) >= 10
    imported = imported_by(f"import {', '.join(names)}")
    assert imported >= {"deployr_core", "numpy", "msgspec"}
    assert imported & HEAVY == set()
