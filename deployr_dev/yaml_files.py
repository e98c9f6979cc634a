"""YAML files of a declared shape: read strictly, with messages that name the file, the key and what was expected."""

from __future__ import annotations

from pathlib import Path

from deployr_core.strict_yaml import T, YamlInvalid, parse_yaml


class FileInvalid(ValueError):
    """The file is not of the shape that it must have; the message names the file and the key."""


def read_yaml(path: Path, shape: type[T]) -> T:
    """Read a YAML file into a struct; see `deployr_core.strict_yaml.parse_yaml`.

    Raises:
        FileInvalid: cannot be read, or is not of that shape.
    """
    try:
        return parse_yaml(path.read_bytes(), shape)
    except OSError as error:
        raise FileInvalid(f"{path}: cannot be read ({error.strerror})") from None
    except YamlInvalid as error:
        raise FileInvalid(f"{path}: {error}") from None
