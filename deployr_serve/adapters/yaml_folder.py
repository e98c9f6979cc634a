"""A folder with one YAML file for each of something: what could be read, and what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

_T = TypeVar("_T", bound=msgspec.Struct)


def read_folder(folder: Path | None, kind: type[_T], *, setting: str, each: str) -> tuple[dict[str, _T], list[str]]:
    """Read every ``*.yaml`` of the folder that a setting names; None holds none.

    Returns:
        What was read by the file's name, in order of the names; and the problems, each with the name of its file.
    """
    if folder is None:
        return {}, []
    if not folder.is_dir():
        return {}, [f"{setting}: expected a folder with one YAML file for each {each}"]
    from deployr_core.strict_yaml import YamlInvalid, parse_yaml

    read: dict[str, _T] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            read[path.name] = parse_yaml(path.read_bytes(), kind)
        except OSError as error:
            problems.append(f"{path.name}: cannot be read ({error.strerror})")
        except YamlInvalid as error:
            problems.append(f"{path.name}: {error}")
    return read, problems
