"""One restrained look, that of the mock EMR's screens: ink on paper, one accent, red for what is off."""

from __future__ import annotations

LIGHT = {"paper": "#f4f6f7", "sheet": "#ffffff", "ink": "#17212b", "accent": "#0a5a7d", "line": "#d3dae0"}
DARK = {"paper": "#12181e", "sheet": "#1a222a", "ink": "#e6ebef", "accent": "#7cc4e4", "line": "#33404b"}

_LOOK = {"baseRadius": "0.3rem"}


def options() -> dict[str, str | int | bool]:
    """Give the server's settings by their dotted names: nothing is reported to anybody, errors show no values."""
    shared: dict[str, str | int | bool] = {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "minimal",
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.enableStaticServing": False,
        "server.maxUploadSize": 1,
        "server.showEmailPrompt": False,
        "runner.magicEnabled": False,
    }
    shared |= {f"theme.{name}": value for name, value in _LOOK.items()}
    for name, look in (("light", LIGHT), ("dark", DARK)):
        shared |= {
            f"theme.{name}.primaryColor": look["accent"],
            f"theme.{name}.backgroundColor": look["paper"],
            f"theme.{name}.secondaryBackgroundColor": look["sheet"],
            f"theme.{name}.textColor": look["ink"],
            f"theme.{name}.borderColor": look["line"],
            f"theme.{name}.linkColor": look["accent"],
        }
    return shared


def colours(*, dark: bool) -> str:
    """Give what `RULES` and other style sheets of ours name colours by."""
    look = DARK if dark else LIGHT
    quiet, off, tint = ("#a3b0bb", "#ff9a8f", "#1f3340") if dark else ("#52606d", "#a61b1b", "#e3eff4")
    named = {**look, "quiet": quiet, "off": off, "tint": tint}
    return " ".join(f"--d-{name}: {colour};" for name, colour in named.items())


RULES = """
.d-quiet { color: var(--d-quiet); font-weight: 400; }
.d-panel p { margin: .3rem 0; max-width: 60rem; }
.d-said:first-of-type { font-size: 1.0625rem; font-weight: 600; }
.d-body { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.d-body > .d-scroll { flex: 1 1 22rem; min-width: 0; }
.d-body > .d-wide { flex-basis: 100%; }
.d-figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: .75rem 0; min-width: 0; max-width: 100%; }
.d-figures figure { margin: 0; max-width: 100%; overflow-x: auto; }
.d-figures figure:focus-visible { outline: 3px solid var(--d-accent); outline-offset: 2px; }
.d-figures figcaption { font-size: .875rem; font-weight: 600; padding-bottom: .25rem; }
.d-note { color: var(--d-quiet); font-size: .8125rem; }
.d-missing { border-left: .35rem solid var(--d-line); padding: .25rem 0 .25rem .9rem; }
.d-scroll { overflow-x: auto; }
.d-long { max-height: 26rem; }
.d-scroll:focus-visible, .d-panel a:focus-visible, .d-tabs a:focus-visible, .d-panel summary:focus-visible,
.d-top a:focus-visible { outline: 3px solid var(--d-accent); outline-offset: 2px; }
.d-table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100%; }
.d-table caption { text-align: left; font-weight: 600; padding: .5rem 0 .25rem; caption-side: top;
  color: var(--d-ink); }
.d-table th, .d-table td { text-align: left; padding: .35rem .9rem .35rem 0; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--d-line); color: var(--d-ink); }
.d-table thead th { color: var(--d-quiet); font-size: .8125rem; font-weight: 600; }
.d-table tbody th { font-weight: 600; }
.d-table .d-number { text-align: right; white-space: nowrap; }
.d-panel details { margin: .35rem 0; font-size: .875rem; }
.d-panel summary { cursor: pointer; color: var(--d-accent); }
.d-linked td, .d-linked th { overflow-wrap: break-word; }
.d-linked a { white-space: nowrap; }
.d-linked ul { margin: .25rem 0; padding-left: 1.1rem; }
.d-watch { color: var(--d-off); font-weight: 600; }
.d-fine { color: var(--d-quiet); }
"""
"""How panels look, on pages and in reports; `colours` gives what they name."""

_PAGES = """
.stMainBlockContainer { max-width: 84rem; padding: 3.25rem 2rem 4rem; }
[data-testid="stHeader"] { background: transparent; }
[data-testid="stSidebarHeader"] { height: 2.5rem; }
.d-top { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline;
  border-bottom: 1px solid var(--d-line); padding-bottom: .5rem; margin-bottom: 1rem; }
.d-top h1 { font-size: 1.5rem; margin: 0; padding: 0; flex: 1; }
.d-tabs { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; border-bottom: 1px solid var(--d-line); }
.d-tabs a { padding: .5rem .1rem; color: var(--d-ink) !important; text-decoration: none;
  border-bottom: 3px solid transparent; }
.d-tabs a[aria-current] { border-color: var(--d-accent); font-weight: 600; }
.d-tabs a:hover { border-color: var(--d-line); }
.stVerticalBlock:has(> .stElementContainer .d-panel) { gap: .25rem; }
[class*="st-key-panel-"] { background: var(--d-sheet); border-color: var(--d-line) !important;
  border-radius: 0 !important; }
[class*="st-key-panel-"]:has(.d-asked) { border-left: .35rem solid var(--d-accent) !important; }
.stApp a:not(.d-tabs a) { color: var(--d-accent); }
.d-alone { background: var(--d-sheet); border: 1px solid var(--d-line); padding: 1rem; }
.d-panel h2, .d-alone h2 { font-size: 1.125rem; margin: 0 0 .35rem; padding: 0; }
.d-absent th { width: 15rem; }
@media (min-width: 60rem) { .d-wide tbody th { white-space: nowrap; } }
.d-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.d-figures img { display: block; max-width: 100%; height: auto; }
.d-end { margin-top: 1rem; border-top: 1px solid var(--d-line); padding-top: .5rem; }
.d-glance td, .d-glance th { vertical-align: middle; }
.d-glance img { display: block; }
.d-glance .d-fine { font-size: .8125rem; white-space: nowrap; }
.d-help { background: var(--d-tint); border-left: .35rem solid var(--d-accent); padding: .9rem 1.25rem;
  max-width: 52rem; }
.d-help h2 { font-size: 1.125rem; margin: 0 0 .35rem; padding: 0; }
.d-help code, .d-alarm code { white-space: pre-wrap; overflow-wrap: anywhere; }
.d-alarm { background: var(--d-sheet); border: 1px solid var(--d-off); border-left: .35rem solid var(--d-off);
  padding: .9rem 1.25rem; max-width: 60rem; margin-bottom: .75rem; }
.d-alarm h2 { font-size: 1.125rem; margin: 0 0 .35rem; padding: 0; color: var(--d-off); }
.d-ways { display: flex; gap: 1rem; }
.d-ways a[aria-current] { text-decoration: none; font-weight: 600; }
@media (prefers-reduced-motion: reduce) {
  .stApp, .stApp *, .stApp *::before, .stApp *::after { animation: none !important; transition: none !important; }
}
"""


def style(*, dark: bool) -> str:
    """Give the pages' style sheet; all names begin with ``d-``, so that none is the framework's."""
    return f"<style>:root {{ {colours(dark=dark)} }}{RULES}{_PAGES}</style>"
