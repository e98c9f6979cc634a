"""Writes the reference pages of the documentation site, from the code alone: nothing of it is kept by hand.

Commands from their help, files from the shapes that read them, HTTP from the OpenAPI document that the app serves, and
modules from their docstrings.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import typer

from deployr_cli.main import app
from deployr_core.features import json_schema
from deployr_core.monitoring.alert_rules import AlertRules
from deployr_dash.plan import MonitoringPlan
from deployr_dev.cohorts.tasks import Task
from deployr_dev.runs.config import ModelConfig
from deployr_dev.search import Search
from deployr_dev.sources.mapping import SourceMapping
from deployr_serve.core.batch import Batch
from deployr_serve.core.policy import Policy
from deployr_serve.triggers.openapi import render_openapi

ROOT = Path(__file__).resolve().parent.parent

FILES: Mapping[str, tuple[type[msgspec.Struct], str]] = {
    "deployment": (Policy, "What a site does with one model's scores: a YAML file in `DEPLOYR_DEPLOYMENTS`."),
    "task": (
        Task,
        "What is predicted, for whom and when: a YAML file for `deployr train`, or part of a model config.",
    ),
    "model-config": (ModelConfig, "All that makes a model: a YAML file for `deployr run`."),
    "search": (Search, "Settings of an estimator to try: a YAML file for `deployr train --search`."),
    "source-mapping": (SourceMapping, "A warehouse's tables: a YAML or JSON file beside the extract."),
    "batch": (Batch, "Whom to ask about without being called: a YAML file in `DEPLOYR_BATCHES`."),
    "alert-rules": (
        AlertRules,
        "The rules of `alerts.yaml` as they are in force. In the file `rules` and each of `models` say only what "
        "differs from the defaults; see docs/alerts.md.",
    ),
    "monitoring-plan": (MonitoringPlan, "Who watches what: a `monitoring_plan.yaml` for the dashboard and reports."),
}
"""By page: the shape that the product itself reads the file with, and what the file is for."""

PACKAGES = (
    "deployr_core",
    "deployr_core/monitoring",
    "deployr_core/registry",
    "deployr_core/governance",
    "deployr_dev",
    "deployr_dev/cohorts",
    "deployr_dev/evaluation",
    "deployr_dev/runs",
    "deployr_dev/sources",
    "deployr_serve/core",
    "deployr_serve/outputs",
    "label_extractors",
)
"""What may be imported from elsewhere; the rest is the app, the command line and the pages."""


def write_reference(folder: Path) -> list[str]:
    """Write all reference pages into a folder; give their names, in the order in which they are read."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"commands": commands_page(), "http": http_page(), "feature-declaration": declaration_page()}
    pages |= {name: file_page(name, shape, purpose) for name, (shape, purpose) in FILES.items()}
    for package in PACKAGES:
        if (ROOT / package / "__init__.py").is_file():
            pages[package.replace("/", "-")] = package_page(package)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / "openapi.json").write_bytes(msgspec.json.format(render_openapi()))
    for name, (shape, _) in FILES.items():
        (folder / f"{name}.schema.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(msgspec.json.schema(shape)))
        )
    return list(pages)


def commands_page() -> str:
    """Give every `deployr` command with its options, in the order of its help."""
    command: Any = typer.main.get_command(app)
    command.bring_all()
    return "# Commands\n\nWhat `--help` says, of every command.\n" + "".join(_command_lines(command, "deployr"))


def _command_lines(command: Any, path: str) -> Iterator[str]:
    said = re.sub(r"\[/?\w+\]", "", command.help or "")
    yield f"\n## {path}\n\n{_prose(said)}\n"
    rows = []
    for param in command.params:
        names = ", ".join(f"`{each}`" for each in (*param.opts, *param.secondary_opts)) if param.opts else ""
        if param.param_type_name == "argument":
            names = f"`{param.name.upper()}`"
        rows.append((names, "yes" if param.required else "", _cell(getattr(param, "help", None) or "")))
    if rows:
        yield "\n" + _table(("option", "required", "meaning"), rows)
    for name in getattr(command, "commands", {}):
        yield from _command_lines(command.commands[name], f"{path} {name}")


def http_page() -> str:
    """Give every route of the OpenAPI document, with its answers, and the shapes in them."""
    document = json.loads(render_openapi())
    lines = [
        "# HTTP\n\nThe routes that the app describes at `/api/openapi.json`: [the same document](openapi.json). "
        "CDS Hooks and alerts that send CDA have formats of their own: [CDS Hooks](../cds-hooks.md), "
        "[BPA](../bpa.md).\n"
    ]
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            lines.append(f"\n## {method.upper()} /{path.removeprefix('/')}\n\n{_cell(said.get('summary', ''))}\n")
            if said.get("description"):
                lines.append(f"\n{_prose(said['description'])}\n")
            rows = [(f"`{code}`", _cell(each["description"])) for code, each in said["responses"].items()]
            lines.append("\n" + _table(("status", "meaning"), rows))
    lines += _shapes(document["components"]["schemas"], page="#/components/schemas/")
    return "".join(lines)


def file_page(name: str, shape: type[msgspec.Struct], purpose: str) -> str:
    """Give the keys of one kind of file."""
    (root,), shapes = msgspec.json.schema_components([shape], ref_template="#/$defs/{name}")
    first = root["$ref"].rpartition("/")[2]
    shapes = {first: shapes[first], **shapes}
    title = name.replace("-", " ").capitalize()
    head = f"# File: {title.lower()}\n\n{purpose} As [JSON Schema]({name}.schema.json).\n"
    return head + "".join(_shapes(shapes, page="#/$defs/"))


def declaration_page() -> str:
    """Give the keys of a feature declaration."""
    schema = json_schema()
    shapes = {"Declaration": {key: value for key, value in schema.items() if key != "$defs"}, **schema.get("$defs", {})}
    if "$ref" in schema:
        del shapes["Declaration"]
    head = "# File: feature declaration\n\nWhat a model sees, as JSON: [training](../training.md#the-declaration). "
    return head + "As [JSON Schema](../feature-declaration.schema.json).\n" + "".join(_shapes(shapes, page="#/$defs/"))


def _shapes(shapes: Mapping[str, Any], *, page: str) -> Iterator[str]:
    for name, schema in shapes.items():
        yield f"\n## {name}\n\n{_prose(schema.get('description', ''))}\n"
        required = schema.get("required", ())
        rows = [
            (f"`{key}`", _kind(each, page), "yes" if key in required else _default(each))
            for key, each in schema.get("properties", {}).items()
        ]
        if rows:
            yield "\n" + _table(("key", "what it is", "required, or its default"), rows)
        elif "properties" not in schema:
            yield f"\n{_kind(schema, page)}\n"


def _kind(schema: Any, page: str) -> str:
    """Say in words what a value may be."""
    match schema:
        case {"$ref": str(ref)}:
            name = ref.removeprefix(page)
            return f"[{name}](#{name.lower()})"
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"anyOf": options} | {"oneOf": options}:
            return " or ".join(_kind(each, page) for each in options)
        case {"type": "array", **rest}:
            return f"list of {_kind(rest.get('items'), page)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"by name: {_kind(values, page)}"
        case {"type": str(kind), "pattern": str(pattern)}:
            return f"{kind}, as `{_bare(pattern)}`"
        case {"type": str(kind)}:
            return {"null": "nothing"}.get(kind, kind)
        case {"type": [*kinds]}:
            return " or ".join(kinds)
        case _:
            return "anything"


def _default(schema: Any) -> str:
    if not isinstance(schema, dict) or "default" not in schema:
        return ""
    return f"`{_bare(json.dumps(schema['default'], ensure_ascii=False))}`"


def package_page(package: str) -> str:
    """Give what a package's modules offer: their docstrings, public functions and classes."""
    name = package.replace("/", ".")
    lines = [f"# {name}\n"]
    for file in sorted((ROOT / package).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file.name == "__init__.py":
            lines.append(f"\n{_prose(ast.get_docstring(tree) or '')}\n")
        elif not file.stem.startswith("_"):
            lines.append(f"\n## {name}.{file.stem}\n\n{_prose(ast.get_docstring(tree) or '')}\n")
            lines += _members(tree)
    return "".join(lines)


def _members(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"\n### {node.name}\n\n```python\n{_signature(node)}\n```\n"
            yield f"\n{_prose(ast.get_docstring(node) or '')}\n"
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
                    said = inspect.cleandoc(ast.get_docstring(part) or "").partition("\n\n")[0]
                    yield f"\n- `{part.name}({_bare(_arguments(part))})`: {_cell(said)}\n"


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if not isinstance(node, ast.ClassDef):
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        whole = f"{kind} {node.name}({_arguments(node)}){returns}"
        if len(whole) <= 80:
            return whole
        # A comma outside of brackets is one between arguments.
        arguments = re.sub(r", (?![^\[(]*[\])])", ",\n    ", _arguments(node))
        return f"{kind} {node.name}(\n    {arguments},\n){returns}"
    fields = [
        f"    {ast.unparse(each)}"
        for each in node.body
        if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_")
    ]
    bases = ", ".join(ast.unparse(each) for each in node.bases)
    return "\n".join((f"class {node.name}({bases})" if bases else f"class {node.name}", *fields))


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.unparse(node.args).removeprefix("self, ").removeprefix("self")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join((*lines, *(f"| {' | '.join(row)} |" for row in rows))) + "\n"


def _cell(text: str) -> str:
    """Give text on one line, with nothing in it that a table would take for its own."""
    return _escaped(" ".join(re.sub(r"\[/?(?:bold|dim|italic)\]", "", text).split())).replace("|", r"\|")


def _bare(text: str) -> str:
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")


def _prose(docstring: str) -> str:
    """Give a docstring as Markdown: its sections as lists, its indented lines as code, all else as it was written."""
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        head, _, rest = block.partition("\n")
        if head in {"Args:", "Raises:", "Returns:", "Yields:"} and rest:
            parts.append(f"**{head[:-1]}**\n\n" + "\n".join(_items(inspect.cleandoc("\n" + rest))))
        elif all(line.startswith("    ") for line in block.splitlines()):
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            parts.append("\n".join(_escaped(line) for line in block.splitlines()))
    return "\n\n".join(parts)


def _items(text: str) -> Iterator[str]:
    """Give each entry of a section as one item; what is indented goes on with the entry before."""
    lines = text.splitlines()
    starts = [place for place, line in enumerate(lines) if not line.startswith(" ")]
    for start, end in pairwise((*starts, len(lines))):
        yield "- " + _escaped(" ".join(line.strip() for line in lines[start:end]))


def _escaped(text: str) -> str:
    """Keep what stands between backticks, and let nothing else be Markdown."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(
        part if place % 2 else re.sub(r"([*_<>\[\]{}$\\#~])", r"\\\1", part).replace("`", r"\`")
        for place, part in enumerate(parts)
    )
