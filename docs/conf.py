"""The site of this documentation, built by `scripts/docs`: Sphinx, with pages in Markdown."""

project = "Headroom"
copyright = "Headroom's authors, Apache-2.0"
extensions = ["myst_parser", "sphinxcontrib.mermaid", "lab.site.outside_links"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]

# Headings have the anchors that Git hosts give them, so that links work there, too.
myst_heading_anchors = 6
myst_fence_as_directive = ["mermaid"]
# Reports of scripts begin their sections where their readers want them, not at the next level.
suppress_warnings = ["myst.header"]

# No reader's browser asks another host for a script.
mermaid_use_local = "diagrams.js"
mermaid_include_elk = False
mermaid_fullscreen = False
