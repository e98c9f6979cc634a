"""What all pages share: the way in, the head of the page, and how panels stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from urllib.parse import urlencode

import streamlit as st

from deployr_dash.panels.panel import Panel
from deployr_dash.screens.shown import absent_html, help_html, panel_html, picture
from deployr_dash.sign_in import Refused, Remedy, SignInKind, admit
from deployr_dash.sources import Sources
from deployr_dash.theme import style
from deployr_plots.drawing import figure_png, figure_svg
from deployr_plots.palettes import DARK, LIGHT
from deployr_plots.tables import figure_csv

_CURRENT = ' aria-current="page"'


def is_dark() -> bool:
    """Say whether the page is shown on dark paper."""
    return st.context.theme.type == "dark"


def let_in(sources: Sources) -> str:
    """Give the name of who looks, empty where nobody signs in; whoever may not look sees why, and nothing else."""
    st.html(style(dark=is_dark()))
    is_entra = sources.sign_in.kind is SignInKind.ENTRA
    claims = st.user.to_dict() if is_entra and st.user.is_logged_in else None
    headers = {name.lower(): value for name, value in st.context.headers.to_dict().items()}
    decided = admit(sources.sign_in, headers, claims=claims, now=sources.now())
    if isinstance(decided, Refused):
        head("deployr", aside="how the models do", name="", environment=sources.environment)
        st.html(help_html("Nothing to see without a sign-in", (decided.why,)))
        if decided.remedy is not None:
            st.button(decided.remedy, on_click=st.login if decided.remedy is Remedy.SIGN_IN else st.logout)
        st.stop()
    if is_entra:
        st.sidebar.button("Sign out", on_click=st.logout, type="tertiary")
    return decided.name


def head(title: str, *, aside: str, name: str, environment: str, here: str = "", model: str = "") -> None:
    """Show the head of a page: what it is, of when, who looks, and the ways to the others.

    Args:
        title: of the page.
        aside: what it shows is of when.
        name: who looks; empty where nobody signs in.
        environment: the EMR's.
        here: the address of the page, where it is one of those that the ways lead to.
        model: whose registry the way leads to; empty for that of all models.
    """
    to_registry = link("registry", {"model": model} if model else {})
    ways = "".join(
        f'<a href="{escape(to)}" target="_self"{_CURRENT if here == to else ""}>{called}</a>'
        for to, called in (("./", "All models"), (to_registry, "Registry"))
    )
    who = f" · {escape(name)}" if name else ""
    where = f"{escape(environment)}, read only" if environment else "read only"
    st.html(
        f'<header class="d-top"><h1>{escape(title)}</h1><nav class="d-ways" aria-label="Pages">{ways}</nav>'
        f'<span class="d-quiet">{escape(aside)} · {where}{who}</span></header>'
    )


def link(page: str, query: dict[str, str]) -> str:
    """Give an address within the dashboard."""
    return f"{page}?{urlencode(query)}" if query else page


def show(panels: Sequence[Panel], *, asked: str | None = None) -> None:
    """Show panels, the one that was asked for first, each with its figures to take away.

    Those that have nothing to show stand together at the end; at the top, where the first of all is one of them.
    """
    absent = [each for each in panels if each.missing is not None and each.name != asked]
    if absent and panels[0] in absent:
        _show_absent(absent)
    for panel in sorted((each for each in panels if each not in absent), key=lambda each: each.name != asked):
        with st.container(border=True, key=f"panel-{panel.name}"):
            st.html(panel_html(panel, partial(picture, dark=is_dark()), asked=panel.name == asked))
            if panel.figures:
                _to_take_away(panel)
    if absent and panels[0] not in absent:
        _show_absent(absent)


def _show_absent(panels: Sequence[Panel]) -> None:
    with st.container(border=True, key="panel-absent"):
        st.html(absent_html(panels))


def end() -> None:
    """Close the page; whoever waits for it waits for this."""
    said = (
        "deployr: figures are of the extract. The dashboard itself can change nothing; what somebody decides goes to"
        " the app under their own name."
    )
    st.html(f'<footer class="d-end d-note">{said}</footer>')


def _to_take_away(panel: Panel) -> None:
    palette = DARK if is_dark() else LIGHT
    with st.popover(f"Save figures of “{panel.title}”", type="tertiary"):
        for figure in panel.figures:
            st.caption(figure.title)
            with st.container(horizontal=True):
                # What is saved is drawn when it is asked for, and on light paper unless the page is dark.
                for kind, mime, made in (
                    ("PNG", "image/png", lambda figure=figure: figure_png(figure, palette=palette)),
                    ("SVG", "image/svg+xml", lambda figure=figure: figure_svg(figure, palette=palette).encode()),
                    ("CSV", "text/csv", lambda figure=figure: figure_csv(figure)),
                ):
                    st.download_button(
                        kind,
                        data=made,
                        file_name=f"{figure.name}.{kind.lower()}",
                        mime=mime,
                        key=f"{figure.name}-{kind}",
                        on_click="ignore",
                        help=f"Save “{figure.title}” as {kind}",
                    )
