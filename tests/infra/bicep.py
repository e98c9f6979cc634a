"""Reads Bicep for the tests: declarations with their literal values. No compiler: it looks at no types and scopes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

tree_sitter = pytest.importorskip("tree_sitter", reason="needs the packages tree-sitter and tree-sitter-bicep")
_grammar = pytest.importorskip("tree_sitter_bicep", reason="needs the package tree-sitter-bicep")

ROOT = Path(__file__).parents[2] / "infra"
_parser = tree_sitter.Parser(tree_sitter.Language(_grammar.language()))


@dataclass(frozen=True)
class Expression:
    """What is only known when it is deployed, as it is written."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A resource or a module: its type or file, and its body; of a loop, the body of each.

    ``inside``: the resources in it.
    """

    symbol: str
    of: str
    body: dict[str, Any]
    is_loop: bool
    is_conditional: bool
    inside: tuple[Declared, ...] = ()

    @property
    def type(self) -> str:
        return self.of.partition("@")[0]


@dataclass(kw_only=True)
class Template:
    """One file. ``parameters`` and ``variables`` by name; of a parameter without a default the value is None."""

    file: Path
    text: str
    problems: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)
    allowed: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    resources: list[Declared] = field(default_factory=list)
    modules: list[Declared] = field(default_factory=list)


def read(file: Path) -> Template:
    """Read a template, or a file of parameters, whose ``param`` lines are variables then.

    Two words are younger than the grammar, and taken out before it sees them: ``extension NAME`` and ``using FILE``.
    """
    text = file.read_text(encoding="utf-8")
    lines = ["" if line.startswith(("extension ", "using ")) else line for line in text.split("\n")]
    if file.suffix == ".bicepparam":
        lines = [f"var {line.removeprefix('param ')}" if line.startswith("param ") else line for line in lines]
    root = _parser.parse("\n".join(lines).encode()).root_node
    template = Template(file=file, text=text, problems=[f"{file.name}:{line}" for line in _errors(root)])
    waiting: list[Any] = []
    for node in root.named_children:
        match node.type:
            case "decorators":
                waiting = list(node.named_children)
            case "parameter_declaration":
                name, _, *default = node.named_children
                template.parameters[_text(name)] = value(default[0]) if default else None
                for decorator in waiting:
                    call = decorator.named_children[0]
                    if _text(call.named_children[0]) == "allowed":
                        template.allowed[_text(name)] = value(call.named_children[1].named_children[0])
            case "variable_declaration":
                name, written = node.named_children
                template.variables[_text(name)] = value(written)
            case "output_declaration":
                template.outputs.add(_text(node.named_children[0]))
            case "resource_declaration":
                template.resources.append(_declared(node))
            case "module_declaration":
                template.modules.append(_declared(node))
        if node.type != "decorators":
            waiting = []
    return template


def every(template: Template) -> Iterator[Declared]:
    """Give all resources of a template, those inside of others too."""
    waiting = list(template.resources)
    while waiting:
        one = waiting.pop(0)
        yield one
        waiting += one.inside


def value(node: Any) -> Any:
    """Give a literal as Python's own, and anything else as an `Expression`."""
    match node.type:
        case "object":
            return dict(_properties(node))
        case "array":
            return [value(child) for child in node.named_children if child.type != "comment"]
        case "string" if all(child.type == "string_content" for child in node.named_children):
            return "".join(_text(child) for child in node.named_children).replace("\\'", "'")
        case "number":
            return int(_text(node))
        case "boolean":
            return _text(node) == "true"
        case "null":
            return None
        case _:
            return Expression(_text(node))


def strings(node_value: Any) -> Iterator[str]:
    """Give every text in a value, those of expressions as they are written."""
    match node_value:
        case dict():
            for held in node_value.values():
                yield from strings(held)
        case list():
            for held in node_value:
                yield from strings(held)
        case Expression(text):
            yield text
        case str():
            yield node_value


def _properties(node: Any) -> Iterator[tuple[str, Any]]:
    for child in node.named_children:
        if child.type != "object_property" or child.named_children[0].type == "resource_declaration":
            continue
        key, held = child.named_children[0], child.named_children[-1]
        yield (_text(key) if key.type == "identifier" else _text(key).strip("'")), value(held)


def _declared(node: Any) -> Declared:
    symbol, of, *rest = [child for child in node.named_children if child.type != "comment"]
    body = rest[-1]
    is_loop = body.type == "for_statement"
    is_conditional = body.type == "if_statement"
    while body.type in {"for_statement", "if_statement"}:
        body = body.named_children[-1]
    inside = ()
    if body.type == "object":
        inside = tuple(
            _declared(child.named_children[0])
            for child in body.named_children
            if child.type == "object_property" and child.named_children[0].type == "resource_declaration"
        )
    return Declared(
        symbol=_text(symbol),
        of=value(of),
        body=value(body) if body.type == "object" else {},
        is_loop=is_loop,
        is_conditional=is_conditional,
        inside=inside,
    )


def _errors(node: Any) -> Iterator[int]:
    if node.is_error or node.is_missing:
        yield node.start_point[0] + 1
    for child in node.children:
        yield from _errors(child)


def _text(node: Any) -> str:
    return node.text.decode()
