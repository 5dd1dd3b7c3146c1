"""The documentation builds as a site: without broken links, and without a request to another host."""

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs the development packages")

from headroom.processes.exceptions import PartError
from lab.site.build import ROOT, build

# The script that draws diagrams is downloaded, and no test needs a registry. Another one stands in its place.
SCRIPT = {"mermaid.tiny.js": b"globalThis.mermaid = {};"}
# What pages load: scripts, modules, styles, pictures.
LOADED = re.compile(r"""(?:\bsrc=|<link [^>]*\bhref=|\bimport\b[^;]*?)["'](https?:)?//""")

pytestmark = [
    pytest.mark.xdist_group("site"),
    # MyST's, of Sphinx' next version.
    pytest.mark.filterwarnings("ignore:'myst_parser.*deprecated"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build(ROOT / "docs", out, SCRIPT)
    return out


@pytest.mark.slow
def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f'href="{page.stem}.html"' in front or page.stem == "index"


@pytest.mark.slow
def test_there_are_a_search_and_a_switch_between_dark_and_light(site: Path) -> None:
    assert "goodput" in (site / "searchindex.js").read_text()
    front = (site / "index.html").read_text()
    assert 'action="search.html"' in front
    assert "theme-toggle" in front


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = {page.name: page.read_text() for page in site.glob("*.html")}
    assert {name for name, text in pages.items() if LOADED.search(text)} == set()
    assert './_static/diagrams.js"' in pages["architecture.html"]
    assert (site / "_static" / "mermaid.tiny.js").read_bytes() == SCRIPT["mermaid.tiny.js"]


@pytest.mark.slow
def test_a_file_outside_the_documentation_is_copied(site: Path) -> None:
    copied = {file.read_bytes() for file in (site / "_downloads").rglob("*.md")}
    assert (ROOT / "SECURITY.md").read_bytes() in copied


def small(folder: Path, text: str) -> Path:
    """Write documentation of one page beside the project's own settings."""
    folder.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", folder)
    shutil.copytree(ROOT / "docs" / "_static", folder / "_static")
    (folder / "index.md").write_text(f"# Title\n\n{text}\n")
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](#gone)", "gone"),
        ("![gone](gone.png)", "gone.png"),
        ("[gone](../gone.json)", "gone.json"),
        ("[gone](../GONE.md)", "GONE"),
    ],
)
def test_a_broken_link_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PartError, match=rf"(?s)index\.md:3.*{said}"):
        build(small(tmp_path / "docs", text), tmp_path / "out", SCRIPT)


def test_a_page_outside_the_navigation_is_an_error(tmp_path: Path) -> None:
    pages = small(tmp_path / "docs", "Text.")
    (pages / "lost.md").write_text("# Lost\n")
    with pytest.raises(PartError, match=r"lost\.md.*included in any toctree"):
        build(pages, tmp_path / "out", SCRIPT)
