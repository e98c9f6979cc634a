"""The dashboard's script: Streamlit runs it for each visit and each change, in the process of `deployr dash`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import streamlit as st

from deployr_dash.parts import ExtractMissing, ExtractUnusable, Index
from deployr_dash.screens import all_models, one_model, packet
from deployr_dash.screens.frame import end, head, let_in
from deployr_dash.screens.reading import state
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources, installed

ShowsPage = Callable[[Sources, Index, str], None]
_UNREADABLE = (ExtractMissing, OSError, pa.ArrowException)


def show(page: ShowsPage) -> None:
    """Show a page to whoever may see it; without an extract, say how to make one."""
    sources = installed()
    name = let_in(sources)
    _show(page, sources, name)
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
    ]
    st.navigation(pages, position="hidden").run()


if __name__ == "__main__":
    main()
