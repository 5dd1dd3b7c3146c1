"""The documentation names only existing files, folders and headings. Each page first says what its reader can do."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Programs write these pages.
GENERATED = {"evaluation.md", "evaluation-envoy.md"}
READMES = [*sorted((ROOT / "simulator").glob("*/README.md")), ROOT / "tests/node/README.md"]

FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
# A path from the top of the repository, in prose, a table or a command.
PATH = re.compile(rf"(?<![\w./:-])(?:\./)?((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./<>*-]*)")
# A file name without a folder, such as `engine.py`.
BARE = re.compile(r"`([\w-]+\.(?:py|md|sh))`")
MODULE = re.compile(r"python3? -m ([a-z_]\w*(?:\.\w+)*)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Folders that tests and commands write; they are in .gitignore.
WRITTEN = {"demo-out", "evaluation-out", "build", "dist"}


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return the text of a page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^    .*$", "", FENCE.sub("", page.read_text()), flags=re.MULTILINE))


def exists(path: str) -> bool:
    """Return true if a path of the repository exists. `<name>` stands for any name."""
    pattern = re.sub(r"<[^>]*>", "*", path.rstrip("/").rstrip("."))
    return pattern in WRITTEN or any(True for _ in ROOT.glob(pattern))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        found.add(f"{text}-{seen[text]}" if seen[text] else text)
        seen[text] += 1
    return found


def links(page: Path) -> Iterator[str]:
    """Return the targets of a page's links and pictures that are not web addresses."""
    # A span of code may be the text of a link.
    text = re.sub(r"`[^`\n]*`", "code", FENCE.sub("", page.read_text()))
    return (target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target)


@pytest.mark.parametrize("page", PAGES + READMES, ids=identify)
def test_every_named_path_exists(page: Path) -> None:
    # `helm/test_x.py::test_y` is relative to tests/; tests/helm/test_documentation.py looks for those.
    text = re.sub(r"`[^`\n]*::[^`\n]*`", "", page.read_text())
    assert sorted({path for path in PATH.findall(text) if not exists(path)}) == []


@pytest.mark.parametrize("page", PAGES + READMES, ids=identify)
def test_every_file_named_without_a_folder_exists(page: Path) -> None:
    known = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")} | {"README.md"}
    assert sorted(set(BARE.findall(page.read_text())) - known) == []


@pytest.mark.parametrize("page", PAGES + READMES, ids=identify)
def test_every_module_in_a_command_exists(page: Path) -> None:
    modules = {name for name in MODULE.findall(page.read_text()) if name.partition(".")[0] in FOLDERS}
    places = {name: ROOT / name.replace(".", "/") for name in modules}
    found = {
        name for name, place in places.items() if (place / "__main__.py").exists() or place.with_suffix(".py").exists()
    }
    assert modules - found == set()


@pytest.mark.parametrize("page", PAGES + READMES, ids=identify)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in {"docs", "build", "dist"}])
def test_every_page_named_in_code_exists(folder: str) -> None:
    texts = [
        path.read_text(errors="ignore")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".tpl", ".txt", ".sh", ".md"}
    ]
    named = {name for text in texts for name in re.findall(r"(?<!/)\bdocs/[\w-]+\.md\b", text)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=identify)
def test_a_page_begins_with_what_its_reader_can_do(page: Path) -> None:
    title, first = page.read_text().split("\n\n")[:2]
    assert title.startswith("# ")
    assert "\n" not in title
    assert first.count("\n") <= 2
    if page.parent != ROOT:
        assert first.startswith("With this page you can ")
