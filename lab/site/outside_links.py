"""A Sphinx extension: a link to a Markdown file outside the documentation leads to a copy of the file.

MyST copies other files that pages link to, but takes each Markdown file for a page of the site.
"""

import os
from pathlib import Path

from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata


class OutsideLinks(SphinxTransform):
    default_priority = 500

    def apply(self, **_: object) -> None:
        for link in list(self.document.findall(pending_xref)):
            file = Path(f"{link['reftarget']}.md")
            if link.get("refdomain") == "doc" and link.children and file.is_absolute() and file.is_file():
                # Relative to the page, as authors write it.
                target = os.path.relpath(file, Path(self.env.doc2path(self.env.docname)).parent)
                copy = download_reference("", "", reftarget=target, refdoc=self.env.docname)
                copy += link.children
                link.replace_self(copy)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_transform(OutsideLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
