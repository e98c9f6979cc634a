"""The dashboard's script: Streamlit runs it for each visit and each change, in the process of `deployr dash`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import streamlit as st

from deployr_dash.away import StoreAway
from deployr_dash.parts import UNREADABLE, ExtractMissing, ExtractUnusable, Index
from deployr_dash.plan import PlanUnusable
from deployr_dash.registry import RegistryReader
from deployr_dash.screens import all_models, compare, decide, history, one_model, packet, registry, run
from deployr_dash.screens.frame import end, head, let_in
from deployr_dash.screens.reading import state
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources, installed
from deployr_dash.views import ReferenceUnusable

ShowsPage = Callable[[Sources, Index, str], None]
ShowsRegistry = Callable[[Sources, RegistryReader, str], None]
_UNREADABLE = (*UNREADABLE, PlanUnusable, ReferenceUnusable)

_WITHOUT_SETTINGS = help_html(
    "The dashboard does not know the registry",
    (
        "How models stand is read from the site’s own store and shelf, as the commands read it. Start the dashboard"
        " with the site’s settings:",
    ),
    "deployr dash --settings local.settings.json",
)


def show(page: ShowsPage) -> None:
    """Show a page to whoever may see it; without what it reads, say how to make that."""
    sources = installed()
    name = let_in(sources)
    _show(page, sources, name)
    end()


def show_registry(page: ShowsRegistry) -> None:
    """Show a page of the registry, which needs no extract; where it cannot be read, say what to do."""
    sources = installed()
    name = let_in(sources)
    aside, environment = "how models stand", sources.environment
    if sources.registry is None:
        head("Registry", aside=aside, name=name, environment=environment, here="registry")
        st.html(_WITHOUT_SETTINGS)
        end()
        return
    try:
        page(sources, sources.registry, name)
    except StoreAway as error:
        head("Registry", aside=aside, name=name, environment=environment, here="registry")
        st.html(
            help_html(
                "The registry cannot be read",
                (str(error), "The journals are in the store: nothing is lost. Load this page again when it answers."),
            )
        )
    end()


def _show(page: ShowsPage, sources: Sources, name: str) -> None:
    try:
        index = state(sources.extract)
    except _UNREADABLE as error:
        head("deployr", aside="how the models do", name=name, environment=sources.environment)
        st.html(_in_its_place(error))
        return
    try:
        page(sources, index, name)
    except _UNREADABLE as error:
        st.html(_in_its_place(error))


def _in_its_place(error: Exception) -> str:
    """Say why there is nothing, and what to do."""
    match error:
        case ExtractUnusable() | pa.ArrowException():
            return help_html(
                "The extract cannot be used",
                (
                    "There is one, which another version of deployr made, or of which files are missing or damaged.",
                    "Nothing is lost, because all of it is in the store. Make the extract anew, then load this page"
                    " again:",
                ),
                "deployr monitor extract --anew",
            )
        case ExtractMissing():
            return help_html(
                "There is no extract yet",
                (
                    "The dashboard reads tables without identities that are taken from the store, so that it can"
                    " neither slow the app down nor change anything.",
                    "Make them, each night by a timer and now by hand, then load this page again:",
                ),
                "deployr monitor extract",
            )
        case PlanUnusable():
            return help_html(
                "A monitoring plan cannot be used",
                (f"{error}.", "Mend the file, then load this page again: docs/dashboard.md shows a whole one."),
            )
        case ReferenceUnusable():
            return help_html(
                "The reference period cannot be used",
                (
                    "What this model’s drift is held against is damaged, of another version of deployr, or of another"
                    " bundle. The other tabs do not need it.",
                    "Make it anew from days when all was well (--from and --to name them), then load this page again:",
                ),
                f"deployr monitor reference {error.model}",
            )
    return help_html(
        "The extract cannot be read",
        (
            f"The folder is there, and reading it failed ({type(error).__name__}). Look whether its disk is mounted and"
            " this process may read it.",
        ),
    )


def main() -> None:
    """Show the page that the address names."""
    st.set_page_config(page_title="deployr", layout="wide", initial_sidebar_state="auto")
    pages = [
        st.Page(partial(show, all_models.page), title="All models", url_path="all", default=True),
        st.Page(partial(show, one_model.page), title="One model", url_path="model"),
        st.Page(partial(show, packet.page), title="One packet", url_path="packet"),
        *(
            st.Page(partial(show_registry, page), title=title, url_path=path)
            for path, title, page in (
                ("registry", "Registry", registry.page),
                ("run", "One run", run.page),
                ("compare", "Champion and challenger", compare.page),
                ("history", "History", history.page),
                ("decide", "Decide", decide.page),
            )
        ),
    ]
    st.navigation(pages, position="hidden").run()


if __name__ == "__main__":
    main()
