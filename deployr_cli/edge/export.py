"""`deployr bundle export`: a bundle's model for another runtime, compared with its own scores before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployr_cli.failures import CommandFailed, explain

if TYPE_CHECKING:
    from deployr_cli.edge.plain import PlainModel

LARGEST_DIFFERENCE = 1e-6
"""How far an answer may be from the bundle's own: of a probability as it stands, of a number in units of its size."""


class Format(StrEnum):
    """What a bundle can be exported to."""

    ONNX = "onnx"
    PMML = "pmml"

    @property
    def file_name(self) -> str:
        """What the file is called beside a bundle."""
        return f"model.{self}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written. ``golden`` and ``probes``: the largest difference from the bundle's own scores."""

    file: Path
    golden: float
    probes: float
    n_golden: int
    n_probes: int

    def __str__(self) -> str:
        return (
            f"{self.file}: at most {self.golden:.1e} from the bundle's scores on its {self.n_golden} golden rows, and"
            f" {self.probes:.1e} on {self.n_probes} rows at the model's own thresholds"
        )


def export_command(
    folder: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    to: Annotated[Format, typer.Option("--to", help="onnx or pmml.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file; default: model.onnx or model.pmml here.")] = None,
    key: Annotated[list[Path] | None, typer.Option("--key", help="A public key that you trust (PEM).")] = None,
) -> None:
    """Write a bundle's trees or linear model as ONNX or PMML, with its calibration and its features' names.

    The file is scored on the bundle's golden rows and on rows at its thresholds, and refused where it answers more
    than a millionth apart. What makes the features is not in it: docs/edge.md.
    """
    from deployr_core.bundle import BundleInvalid

    try:
        exported = export_bundle(folder, to, out or Path(to.file_name), trusted=key or ())
    except BundleInvalid as error:
        raise CommandFailed(f"{folder}: {error}") from None
    typer.echo(str(exported))


def export_bundle(folder: Path, to: Format, out: Path, *, trusted: Any = ()) -> Exported:
    """Write a bundle's model in another format, if it answers alike.

    Args:
        folder: the bundle's.
        to: the format.
        out: the file; replaced if it is there.
        trusted: files of public keys; with any, one of them must have signed the bundle.

    Raises:
        BundleInvalid: the bundle is not whole, or not signed by one of the keys.
        NotForEdge: its model cannot be said in that format.
        CommandFailed: what writes it is not installed, or it answers otherwise; nothing was written.
    """
    import numpy as np

    from deployr_cli.edge.plain import plain_bundle
    from deployr_core.signing import trusted_key
    from deployr_dev.evaluation.pages import write_whole
    from deployr_serve.adapters.bundle_files import read_bundle, read_files

    keys = tuple(trusted_key(file.read_bytes()) for file in trusted)
    files = read_files(folder, trusted_keys=keys)
    plain = plain_bundle(read_bundle(folder, trusted_keys=keys), files)
    content, answers = _written(plain, to)
    exported = _compared(plain, files, answers, out)
    # Of both: where either is not a number, so is this.
    worst = float(np.maximum(exported.golden, exported.probes))
    if not worst <= LARGEST_DIFFERENCE:
        raise CommandFailed(
            f"{out}: expected answers within {LARGEST_DIFFERENCE:.0e} of the bundle's own, got {worst:.1e}; it was not"
            " written"
        )
    write_whole(out, content)
    return exported


def export_beside(folder: Path) -> tuple[str, ...]:
    """Write every format that a bundle's model can be said in beside it; say what was written, and why what was not."""
    told = []
    for each in Format:
        try:
            told.append(str(export_bundle(folder, each, folder / each.file_name)))
        except Exception as error:  # noqa: BLE001 whatever is wrong with a file that is extra, the bundle is exported
            told.append(f"{each.file_name} was not written: {explain(error)}")
    return tuple(told)


def _written(plain: PlainModel, to: Format) -> tuple[bytes, Callable[[Any], Any]]:
    """Give a file's content, and what scores rows by it."""
    match to:
        case Format.ONNX:
            from deployr_cli.edge import onnx_file

            if not (find_spec("onnx") and find_spec("onnxruntime")):
                raise CommandFailed(
                    "expected ONNX and its runtime; install them with pip install 'deployr[edge]'"
                ) from None
            content = onnx_file.onnx_model(plain).SerializeToString(deterministic=True)
            return content, lambda rows: onnx_file.answers(content, rows)
        case Format.PMML:
            from deployr_cli.edge import pmml_file, pmml_reading

            content = pmml_file.pmml(plain)
            return content, lambda rows: pmml_reading.answers(content, rows)


def _compared(plain: PlainModel, files: Any, answers: Callable[[Any], Any], out: Path) -> Exported:
    import numpy as np

    from deployr_cli.edge.plain import golden_rows, own_answers, rows_to_try
    from deployr_core.outputs import Target

    golden = golden_rows(files)
    rows = rows_to_try(plain, golden)
    own = own_answers(plain, rows)
    rows, own = rows[~np.isnan(own).any(axis=1)], own[~np.isnan(own).any(axis=1)]
    size = np.maximum(1.0, np.abs(own)) if plain.outputs.target is Target.REGRESSION else 1.0
    apart = np.abs(answers(rows) - own) / size
    return Exported(
        file=out,
        golden=float(apart[: len(golden)].max()),
        probes=float(apart[len(golden) :].max(initial=0.0)),
        n_golden=len(golden),
        n_probes=len(rows) - len(golden),
    )
