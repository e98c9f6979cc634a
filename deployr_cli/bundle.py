"""`deployr bundle`: look at a bundle, check it, sign it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployr_cli.edge.export import export_command
from deployr_cli.failures import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from deployr_core.bundle import Manifest
    from deployr_core.codes import Code
    from deployr_core.documents import DocumentGroup
    from deployr_core.elsewhere import Reach
    from deployr_core.signing import TrustedKey
    from deployr_dev.bundles import BundleFiles

_PATIENCE_S = 60.0
"""An endpoint that scales to nothing takes that long to wake."""

bundle_app = typer.Typer(no_args_is_help=True, help="Look at bundles, check them, sign them.")
bundle_app.command("export")(export_command)

_Folder = Annotated[Path, typer.Argument(help="The bundle's folder.")]
_Key = Annotated[
    list[Path] | None, typer.Option("--key", help="A public key that you trust (PEM); may be given several times.")
]


@bundle_app.command()
def inspect(folder: _Folder, key: _Key = None) -> None:
    """Show what a bundle is: model, features, figures, digests, signature. The model itself is not loaded."""
    from rich.console import Console

    files = _checked_files(folder, _trusted_keys(key))
    Console().print(_described(folder, files))


@bundle_app.command()
def verify(
    folder: _Folder,
    key: _Key = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a model that runs code; only if you trust who made it.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(help="The URL of a model that answers elsewhere; its token, if any, in DEPLOYR_PREDICTOR_TOKEN."),
    ] = None,
) -> None:
    """Check signature and digests, then load the model and score its golden vectors on this machine.

    With --key the bundle must be signed by that key. Nothing is loaded before all that is right.
    """
    from deployr_core.bundle import BundleInvalid
    from deployr_core.elsewhere import ModelElsewhere
    from deployr_core.scoring import ModelAway
    from deployr_serve.adapters.bundle_files import read_bundle

    keys, reach = _trusted_keys(key), _reach(at) if at else None
    try:
        bundle = read_bundle(folder, allow_pickle=allow_pickle, trusted_keys=keys, reach=reach)
        if isinstance(bundle.model, ModelElsewhere):
            bundle.model.prove()
    except BundleInvalid as error:
        raise _refused(folder, error) from error
    except ModelAway as error:
        raise CommandFailed(f"{folder}: {error}") from error
    signed = f", signed by {bundle.signed_by}" if bundle.signed_by else ""
    typer.echo(
        f"ok: {bundle.manifest.model_id} {bundle.manifest.version}, {bundle.manifest.n_features} features, "
        f"every digest and golden score as promised{signed}"
    )


@bundle_app.command()
def prove(
    folder: Annotated[Path, typer.Argument(help="The folder of bundles, as DEPLOYR_BUNDLES names it.")],
    key: _Key = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load models that run code; as serving will.")
    ] = False,
) -> None:
    """Try every model of a folder in a child process, as a start does, and note beside them which passed.

    For an app whose folder cannot be written where it runs: with the same libraries, its start then tries none again.
    Models that answer elsewhere are not tried: they prove themselves where they are (`deployr bundle verify --at`).
    """
    from deployr_core.bundle import BundleInvalid
    from deployr_serve.adapters.bundle_files import bundle_place, read_manifest
    from deployr_serve.adapters.models import model_folders
    from deployr_serve.adapters.proving import PROOFS_FILE, Prover

    keys = _trusted_keys(key)
    digests = {}
    for path in (folder / name for name in model_folders(folder)):
        try:
            place = bundle_place(path)
            manifest, digest = read_manifest(place, trusted_keys=keys)
            if not manifest.model.is_elsewhere:
                digests[digest] = place
        except BundleInvalid as error:
            raise _refused(path, error) from error
    pems = tuple(path.read_bytes() for path in key or ())
    prover = Prover(folder / PROOFS_FILE, allow_pickle=allow_pickle, trusted_keys=pems)
    for digest, reason in prover.refused(digests).items():
        raise CommandFailed(f"{digests[digest]}: {reason}")
    typer.echo(f"ok: {len(digests)} models loaded and scored their golden vectors; noted in {folder / PROOFS_FILE}")


@bundle_app.command()
def keygen(
    private: Annotated[Path, typer.Argument(help="Where to write the private key; it must not exist yet.")] = Path(
        "deployr-signing.pem"
    ),
) -> None:
    """Make an Ed25519 key pair: the private key for `sign`, the public one for the sites that trust it.

    The public key is written beside the private one, its name ending in .pub.pem.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from deployr_core.signing import trusted_key

    public = private.with_name(f"{private.name.removesuffix('.pem')}.pub.pem")
    for path in (private, public):
        if path.exists():
            raise CommandFailed(f"{path}: expected a file that does not exist yet; a key is never overwritten")
    made = Ed25519PrivateKey.generate()
    pem = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # Readable by its owner alone from the first byte on.
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(pem)
    typer.echo(f"key {trusted_key(pem).key_id}: private in {private} (keep it off the server), public in {public}")


@bundle_app.command()
def sign(
    folder: _Folder,
    key: Annotated[Path, typer.Option("--key", help="The private Ed25519 key (PEM, without a passphrase).")],
) -> None:
    """Sign a bundle whose digests are right; the signature is written to manifest.sig beside the manifest.

    Of a run's bundle (RUN/bundle) the run's record is signed, too, as run.sig beside run.json.
    """
    from deployr_core.bundle import BundleInvalid
    from deployr_core.registry.run import RUN_SIGNATURE_FILE
    from deployr_core.signing import SIGNATURE_FILE, KeyUnusable, parse_signature
    from deployr_dev.bundles import sign_bundle, sign_run

    try:
        manifest = sign_bundle(folder, key.read_bytes())
        is_of_run = sign_run(folder, key.read_bytes())
    except BundleInvalid as error:
        raise _refused(folder, error) from error
    except KeyUnusable as error:
        raise CommandFailed(f"{key}: {error}; `deployr bundle keygen` makes one") from error
    signed_by = parse_signature((folder / SIGNATURE_FILE).read_bytes()).key_id
    typer.echo(f"signed: {manifest.model_id} {manifest.version} by {signed_by}, in {folder / SIGNATURE_FILE}")
    if is_of_run:
        of_run = folder.parent if folder.name else folder.resolve().parent
        typer.echo(f"signed: its run's record, in {of_run / RUN_SIGNATURE_FILE}")


def _trusted_keys(paths: list[Path] | None) -> tuple[TrustedKey, ...]:
    from deployr_core.signing import KeyUnusable, trusted_key

    keys = []
    for path in paths or ():
        try:
            keys.append(trusted_key(path.read_bytes()))
        except KeyUnusable as error:
            raise CommandFailed(f"{path}: {error}; `deployr bundle keygen` writes one") from error
    return tuple(keys)


def _checked_files(folder: Path, keys: tuple[TrustedKey, ...]) -> BundleFiles:
    from deployr_core.bundle import BundleInvalid
    from deployr_dev.bundles import read_files

    try:
        return read_files(folder, trusted_keys=keys)
    except BundleInvalid as error:
        raise _refused(folder, error) from error


def _reach(url: str) -> Reach:
    from deployr_serve.adapters.clock import SystemClock
    from deployr_serve.adapters.predictors import Address, Predictors
    from deployr_serve.setting_values import plain_url

    try:
        address = Address(url=plain_url(url), token=os.environ.get("DEPLOYR_PREDICTOR_TOKEN"))
    except ValueError as error:
        raise CommandFailed(f"--at: {error}") from error
    return lambda file: Predictors({file.predictor: address}, clock=SystemClock(), timeout_s=_PATIENCE_S).reach(file)


def _refused(folder: Path, error: Exception) -> CommandFailed:
    """Say what is wrong, where, and what helps: a bundle is never mended, it is fetched or made again."""
    message = str(error).removeprefix(f"{folder}{os.sep}")
    if not folder.is_dir():
        return CommandFailed(f"{folder}: expected the folder of a bundle, but there is none")
    if "runs code" in message or "not get" in message or "elsewhere" in message:
        return CommandFailed(f"{folder}: {message}")
    remedy = (
        "have it signed with `deployr bundle sign` by who holds the key, or pass the key that signed it"
        if message.startswith("manifest.sig")
        else "copy the bundle again from where it was made, or train it again"
    )
    return CommandFailed(f"{folder}: {message}; {remedy}")


def _described(folder: Path, files: BundleFiles) -> Table:
    from rich.table import Table
    from rich.text import Text

    from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, sha256_hex
    from deployr_core.documents import DOCUMENTS_FILE, parse_documents
    from deployr_core.features import parse_feature_spec
    from deployr_core.layout import layout_of

    manifest = files.manifest
    table = Table(title=f"{manifest.model_id} {manifest.version}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def section(*rows: tuple[str, str]) -> None:
        for name, value in rows:
            # As text, so that a bracket in a label is not taken for markup.
            table.add_row(name, Text(value))
        table.add_section()

    section(*_what_it_is(folder, manifest))
    spec = parse_feature_spec(files.parts[FEATURES_FILE])
    groups = Counter(layout_of(spec).groups_of)
    documents = parse_documents(files.parts[DOCUMENTS_FILE], spec) if DOCUMENTS_FILE in files.parts else None
    section(
        ("features", f"{sum(groups.values())} in {len(spec.groups)} groups"),
        *((f"  {group.name}", f"{groups[group.name]:,}") for group in spec.groups),
    )
    if documents is not None:
        section(("documents", "of the patient, read beside the features"), *map(_wanted, documents.groups))
    section(*_how_it_did(manifest))
    section(
        *((name, f"{part.sha256}  {part.size:,} bytes") for name, part in sorted(manifest.parts.items())),
        (MANIFEST_FILE, f"{sha256_hex(files.manifest_json)}  {len(files.manifest_json):,} bytes"),
        ("signature", _signature(files)),
        *((("not of the bundle", ", ".join(files.others)),) if files.others else ()),
    )
    return table


def _what_it_is(folder: Path, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    model = manifest.model
    notes = [
        manifest.training.estimator,
        f"kept as {model.kind}",
        *(["absent means missing"] if model.zero_is_missing else []),
        *(["calibrated"] if "calibration.json" in manifest.parts else []),
        *(["LOADING IT RUNS CODE"] if model.runs_code else []),
    ]
    code = manifest.code_version
    return (
        ("folder", str(folder)),
        ("task", f"{manifest.task.name}: {manifest.task.label}"),
        ("predicted", f"per {manifest.task.unit}, at: {manifest.task.index_time}"),
        ("gives", _given(manifest)),
        ("score in the EMR", manifest.score_name),
        ("model", ", ".join(notes)),
        ("trained with", ", ".join(f"{name} {v}" for name, v in sorted(manifest.training.library_versions.items()))),
        ("code", f"deployr {code.package}, sources {code.sources_sha256[:12]}" if code else "not recorded"),
    )


def _wanted(group: DocumentGroup) -> tuple[str, str]:
    """Say which documents a group takes, and what is made of them."""
    from deployr_core.documents import NoteTerms

    which = [f"{name} {', '.join(code.value for code in codes)}" for name, codes in _codes_of(group) if codes]
    how_many = "the latest" if group.most == 1 else f"the latest {group.most}"
    made = f"{len(group.terms):,} terms" if isinstance(group, NoteTerms) else f"{group.rows} by {group.columns} cells"
    rules = f"none: {group.absent}, unusable: {group.unusable}"
    types = f"{', '.join(group.content_types)} up to {group.max_bytes:,} bytes"
    days = "1 day" if group.lookback_days == 1 else f"{group.lookback_days} days"
    return f"  {group.name}", f"{made} of {how_many} in {days}; {'; '.join(which)}; {types}; {rules}"


def _codes_of(group: DocumentGroup) -> tuple[tuple[str, tuple[Code, ...]], ...]:
    return ("type", group.types), ("category", group.categories)


def _given(manifest: Manifest) -> str:
    outputs = manifest.task.outputs
    if outputs.unit is not None:
        return f"{outputs.target}: a number in {outputs.unit}"
    if len(outputs.names) == 1:
        return f"{outputs.target}: one probability"
    return f"{outputs.target}: {', '.join(outputs.names)}; the score is {outputs.headline}"


def _how_it_did(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    training, held_out = manifest.training, manifest.evaluation
    return (
        (
            "trained on",
            f"{training.rows:,} rows of {training.patients:,} patients, {_labels(manifest, training.label_means)}",
        ),
        ("snapshot", training.snapshot_sha256),
        (
            "held out",
            f"{held_out.rows:,} rows of {held_out.patients:,} patients, {_labels(manifest, held_out.label_means)}",
        ),
        *(
            (_figure_name(name), f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}, 95 %)")
            for name, figure in held_out.figures.items()
        ),
    )


def _labels(manifest: Manifest, means: Mapping[str, float]) -> str:
    unit = manifest.task.outputs.unit
    if unit is not None:
        return f"mean {means[manifest.task.outputs.headline]:.2f} {unit}"
    return ", ".join(f"{means[name]:.1%} {name}" for name in manifest.task.outputs.names)


def _figure_name(name: str) -> str:
    figure, _, of = name.partition(".")
    return f"{figure.upper() if figure == 'auroc' else figure}{' of ' + of if of else ''}"


def _signature(files: BundleFiles) -> str:
    from deployr_core.signing import SignatureInvalid, parse_signature

    if files.signed_by is not None:
        return f"by {files.signed_by}, a key that you trust"
    if files.signature is None:
        return "none"
    try:
        claimed = parse_signature(files.signature).key_id
    except SignatureInvalid:
        return "there is one, but it cannot be read"
    return f"claims to be by {claimed}; not checked: pass that key with --key"
