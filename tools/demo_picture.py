"""Makes docs/demo.svg again: runs the demo and keeps what it prints."""

import re
import shutil
from pathlib import Path

from rich.console import Console

from deployr_cli.demo.run import run_demo

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = Path(".deployr/demo")

if __name__ == "__main__":
    console = Console(record=True, width=100, force_terminal=False, color_system="truecolor")
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    if not run_demo(data=None, json_file=None, workspace=WORKSPACE, seed=0, console=console):
        raise SystemExit("the demo failed; the picture was left as it was")
    picture = console.export_svg(title="make demo")
    # The fonts are fetched from elsewhere by default; a picture in a README must not fetch anything.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (ROOT / "docs" / "demo.svg").write_text(picture, encoding="utf-8")
