"""Makes the package that is deployed: the files of this folder, less what .funcignore names, as one zip.

``python tools/package.py OUT.zip``. The same that `azd deploy` and the Core Tools send; for a build machine inside the
private network, and for the tests, which look into it. Its bytes depend on the files alone.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def deployed_files(root: Path = ROOT) -> tuple[Path, ...]:
    """Give what is deployed, relative to the folder, in order.

    .funcignore is read as .gitignore is, of which it uses a part: names and ``*`` at any depth, with ``/`` at the end
    folders only, with ``/`` inside from the folder's root.

    Raises:
        ValueError: a line uses what is not read here.
    """
    lines = (root / ".funcignore").read_text(encoding="utf-8").split("\n")
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for pattern in patterns:
        if pattern.startswith("!") or "**" in pattern or "[" in pattern:
            raise ValueError(f".funcignore: expected plain names and *, got {pattern}")
    return tuple(sorted(_kept(root, Path(), patterns)))


def write_package(out: Path, root: Path = ROOT) -> int:
    """Write the zip; give how many files are in it."""
    files = deployed_files(root)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        for file in files:
            entry = zipfile.ZipInfo(file.as_posix(), _LONG_AGO)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, (root / file).read_bytes())
    return len(files)


def _kept(root: Path, folder: Path, patterns: list[str]) -> Iterator[Path]:
    for entry in (root / folder).iterdir():
        path = folder / entry.name
        if any(_is_named(path, pattern, is_folder=entry.is_dir()) for pattern in patterns):
            continue
        if entry.is_dir():
            yield from _kept(root, path, patterns)
        else:
            yield path


def _is_named(path: Path, pattern: str, *, is_folder: bool) -> bool:
    if pattern.endswith("/") and not is_folder:
        return False
    name = pattern.rstrip("/")
    return fnmatchcase(path.as_posix(), name.lstrip("/")) if "/" in name else fnmatchcase(path.name, name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/package.py OUT.zip")
    sys.stdout.write(f"{write_package(Path(sys.argv[1]))} files\n")
