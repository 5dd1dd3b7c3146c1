"""Builds the site of the documentation."""

import io
from collections.abc import Mapping
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from headroom.processes.exceptions import PartError

ROOT = Path(__file__).parents[2]


def build(pages: Path, out: Path, scripts: Mapping[str, bytes]) -> None:
    """Write the site of the pages to `out`. Raise PartError, with every broken link, for pages that are not right.

    `scripts` are files for the site's static folder: the script that draws diagrams, and its licence.
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
    for name, content in scripts.items():
        (out / "_static" / name).write_bytes(content)
