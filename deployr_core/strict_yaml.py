"""YAML of a declared shape: read strictly, with messages that name the key and what was expected there."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T", bound=msgspec.Struct)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$(?P<place>[^`]*)`)?\Z")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`(?: - at `\$(?P<place>[^`]*)`)?\Z")
_BOOL, _TIMESTAMP = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"


class YamlInvalid(ValueError):
    """The text is not of the shape that it must have; the message names the key."""


def parse_yaml(content: bytes, shape: type[T]) -> T:
    """Read YAML into a struct; nothing is guessed, converted or passed over.

    Raises:
        YamlInvalid: not YAML in UTF-8, a key there twice, missing, misspelt or of the wrong type, or a value that
            cannot be.
    """
    try:
        parsed = yaml.load(content.decode("utf-8-sig"), Loader=_StrictLoader)  # noqa: S506 — a SafeLoader
    except UnicodeDecodeError:
        raise YamlInvalid("expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        raise YamlInvalid(_explained(error)) from None
    if not isinstance(parsed, Mapping):
        raise YamlInvalid(f"expected YAML keys such as {', '.join(_keys(shape)[:3])}")
    try:
        return msgspec.convert(parsed, type=shape)
    except msgspec.ValidationError as error:
        raise YamlInvalid(_with_expected_keys(str(error), parsed, shape)) from None


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML comes without types
    """PyYAML keeps the last of two equal keys without a word; here it is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "expected keys that are text", key_node.start_mark)
            if key in seen:
                problem = f"expected the key {key!r} once, got it twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


# YAML 1.1 takes `mode: off` for False and a date for an instant without its offset; only true and false are booleans.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in {_BOOL, _TIMESTAMP}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|false)\Z"), list("tf"))


def _explained(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return f"{where}{problem or 'expected YAML'}"


def _with_expected_keys(message: str, content: Mapping[str, Any], shape: type[msgspec.Struct]) -> str:
    """Say which keys there are where one is misspelt or missing."""
    match = _UNKNOWN.match(message) or _MISSING.match(message)
    if match is None:
        return message
    place = (match["place"] or "").strip(".")
    keys = _keys(_struct_at(shape, content, place.split(".") if place else []) or shape)
    where = f" in {place}" if place else ""
    if message.startswith("Object missing"):
        return f"expected the key {match['key']!r}{where}, but it is missing"
    close = difflib.get_close_matches(match["key"], keys, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown key {match['key']!r}{where}{hint} (expected one of {', '.join(keys)})"


def _keys(shape: type[msgspec.Struct]) -> list[str]:
    tag = [shape.__struct_config__.tag_field] if shape.__struct_config__.tag_field else []
    return [*tag, *shape.__struct_encode_fields__]


def _struct_at(
    shape: type[msgspec.Struct], content: Mapping[str, Any], places: list[str]
) -> type[msgspec.Struct] | None:
    for place in places:
        here = content.get(place)
        if not isinstance(here, Mapping):
            return None
        structs = list(_structs(typing.get_type_hints(shape).get(place)))
        chosen = [
            s for s in structs if s.__struct_config__.tag in (None, here.get(s.__struct_config__.tag_field or ""))
        ]
        if not chosen:
            return None
        shape, content = chosen[0], here
    return shape


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for part in typing.get_args(hint):
        yield from _structs(part)
