"""The dashboard's script: Streamlit runs it for each visit and each change, in the process of `deployr dash`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from deployr_dash.parts import ExtractMissing, Index
from deployr_dash.screens import all_models, one_model, packet
from deployr_dash.screens.frame import end, let_in
from deployr_dash.screens.reading import state
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources, installed

ShowsPage = Callable[[Sources, Index, str], None]


def show(page: ShowsPage) -> None:
    """Show a page to whoever may see it; without an extract, say how to make one."""
    sources = installed()
    name = let_in(sources)
    _show(page, sources, name)
    end()


def _show(page: ShowsPage, sources: Sources, name: str) -> None:
    try:
        index = state(sources.extract)
    except ExtractMissing:
        st.html(
            help_html(
                "There is no extract yet",
                (
                    "The dashboard reads tables without identities that are taken from the store, so that it can"
                    " neither slow the app down nor change anything.",
                    "Make them, each night by a timer and now by hand, then load this page again:",
                ),
                "deployr monitor extract",
            )
        )
        return
    except OSError as error:
        st.html(
            help_html(
                "The extract cannot be read",
                (
                    f"The folder is there, and reading it failed ({type(error).__name__}). Look whether its disk is"
                    " mounted and this process may read it.",
                ),
            )
        )
        return
    page(sources, index, name)


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
