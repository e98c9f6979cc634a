"""The tool that makes the package, as the tests call it: tools/ is no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("deployr_package_tool", ROOT / "tools" / "package.py")
_tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tool)
deployed_files, write_package = _tool.deployed_files, _tool.write_package
