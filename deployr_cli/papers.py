"""`deployr papers`: the governance papers of a model, written from what is known, with what is missing listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployr_cli.failures import CommandFailed
from deployr_cli.workspaces import EXTRACT_FOLDER, extract_of

if TYPE_CHECKING:
    from deployr_core.governance.card import Card
    from deployr_core.governance.statements import Statements

papers_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Write a model's papers for governance: model card, reporting checklists, source attributes.

Start with: [bold]deployr papers template card.yaml[/bold]; docs/governance.md explains.""",
)


@papers_app.command()
def template(
    file: Annotated[Path, typer.Argument(help="Where to write it; not over a file that is there.")] = Path("card.yaml"),
) -> None:
    """Write an empty card.yaml: what only people know, each question above its key."""
    from deployr_core.governance.statements import template as empty

    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(empty())
    except OSError as error:
        raise CommandFailed(f"{file}: expected a file that is not there yet ({error.strerror})") from None
    typer.echo(f"{file}: fill it in; what stays empty is listed as missing")


@papers_app.command()
def write(
    run: Annotated[Path, typer.Argument(help="The run's folder, or where it lies on the shelf.")],
    card: Annotated[Path | None, typer.Option(help="The card.yaml that people filled in.")] = None,
    extract: Annotated[
        Path | None, typer.Option(help=f"The folder of deployr monitor extract; default: {EXTRACT_FOLDER}, if there.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="chai, minimar, tripod-ai or hti1; repeatable. Default: all but hti1.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="A local.settings.json: the go / no-go checklist of a registered run is then in it, too."),
    ] = None,
    parity: Annotated[Path | None, typer.Option(help="Of the checklist: what deployr parity --json wrote.")] = None,
    bars: Annotated[Path | None, typer.Option(help="Of the checklist: the site's own bars.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write one HTML file, to be printed too.")] = None,
    xml_file: Annotated[
        Path | None, typer.Option("--xml", help="Write CHAI's applied model card as XML, whatever the profiles.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON, for programs.")] = None,
) -> None:
    """Write the papers of one run, and say what is missing. Nothing is invented: what nobody said is listed.

    Start with: [bold]deployr papers write RUN --card card.yaml --html card.html[/bold]
    """
    from deployr_core.governance.card import card_json
    from deployr_core.governance.card_page import card_page
    from deployr_core.governance.chai_xml import chai_xml

    extract = extract_of(extract)
    made = make_card(run, card, extract, profiles=tuple(profile or ()))
    if settings is not None:
        from deployr_cli.models_checklist import computed
        from deployr_cli.models_site import RegistrySite

        site = RegistrySite(settings)
        told = computed(
            site, made.model_id, made.run_id, extract=extract, parity=parity, bars=bars, service=made.service
        )
        made = replace(made, checklist=told)
    for file, content in (
        (html_file, card_page(made).encode()),
        (xml_file, chai_xml(made)),
        (json_file, card_json(made)),
    ):
        if file is not None:
            _write(file, content)
            typer.echo(str(file))
    for paper in made.papers:
        typer.echo(f"{paper.profile.title}: {paper.in_short}")
    if html_file is xml_file is json_file is None:
        from deployr_core.governance.facts import how_to_know

        for name in made.missing:
            typer.echo(f"missing: {how_to_know(name)}")


def make_card(run: Path, card: Path | None, extract: Path | None, *, profiles: tuple[str, ...]) -> Card:
    """Give the card of a run; without an extract, nothing of how it did here is in it.

    Raises:
        CommandFailed: a file is missing or not what it must be, or there is no such profile.
        ExtractMissing: the extract is not there.
    """
    from deployr_cli.papers_evidence import read_run_files, read_service
    from deployr_core.governance.card import Card, papers_of
    from deployr_core.governance.known import facts_of_run, facts_of_service, known_of
    from deployr_core.governance.profiles import PROFILES, USUAL

    if unknown := [name for name in profiles if name not in PROFILES]:
        raise CommandFailed(f"--profile: expected {', '.join(PROFILES)}, got {', '.join(unknown)}")
    files = read_run_files(run)
    service = None if extract is None else read_service(extract, files.run)
    known = known_of(
        [
            *facts_of_run(files.run, files.manifest, files.spec, held_out=files.held_out),
            *(() if service is None else facts_of_service(service)),
            *_statements(card).facts,
        ]
    )
    return Card(
        model_id=files.run.model_id,
        run_id=files.run.run_id,
        bundle_sha256=files.run.bundle_sha256,
        known=known,
        papers=papers_of([PROFILES[name] for name in profiles or USUAL], known),
        held_out=files.held_out,
        service=service,
    )


def _statements(file: Path | None) -> Statements:
    from deployr_core.governance.statements import NOTHING_SAID, parse_statements
    from deployr_core.strict_yaml import YamlInvalid

    if file is None:
        return NOTHING_SAID
    try:
        return parse_statements(file.read_bytes())
    except OSError as error:
        raise CommandFailed(f"{file}: expected a card that can be read ({error.strerror})") from None
    except YamlInvalid as error:
        raise CommandFailed(f"{file}: {error}") from None


def _write(file: Path, content: bytes) -> None:
    from deployr_dev.evaluation.pages import write_whole

    if not file.absolute().parent.is_dir():
        raise CommandFailed(f"{file}: expected its folder to be there; make it first")
    write_whole(file, content)
