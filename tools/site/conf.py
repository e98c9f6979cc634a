"""Sphinx's settings for the documentation site; see build.py."""

project = "deployr"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["files/**", "examples/**"]

myst_heading_anchors = 3
# Two hyphens begin an option; they are no dash.
smartquotes = False
# Answers are shown shortened by …, which is no JSON, and tables in a terminal are no language at all.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "deployr"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
# Summaries are fetched, which a browser refuses for pages that it reads from disk.
html_show_search_summary = False
html_theme_options = {
    "navigation_with_keys": False,
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "font-stack--monospace": "ui-monospace, monospace"},
}
