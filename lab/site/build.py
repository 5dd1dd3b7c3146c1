"""Builds the site of the documentation."""

import io
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from headroom.processes.exceptions import PartError

ROOT = Path(__file__).parents[2]


def build(pages: Path, out: Path, script: bytes) -> None:
    """Write the site of the pages to `out`. Raise PartError, with every broken link, for pages that are not right.

    `script` draws the diagrams.
    """
    complaints = io.StringIO()
    try:
        with patch_docutils(str(pages)), docutils_namespace():
            app = Sphinx(
                pages,
                pages,
                out,
                out / ".doctrees",
                "html",
                confoverrides={"nitpicky": True},
                status=None,
                warning=complaints,
                freshenv=True,
            )
            app.build(force_all=True)
    except SphinxError as error:
        raise PartError(f"{complaints.getvalue()}{error}") from error
    if complaints.getvalue():
        raise PartError(complaints.getvalue().rstrip())
    (out / "_static" / "mermaid.tiny.js").write_bytes(script)
