"""Mermaid's own parser accepts every Mermaid diagram of the documentation."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

quickjs = pytest.importorskip("quickjs", reason="needs the packages quickjs-ng and mermaid-parser-py")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIAGRAMS = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(DIAGRAM.findall(page.read_text()), 1)
]
# Mermaid was written for browsers. Its parser needs only this much of one.
BROWSER = """
var console = Object.fromEntries(["debug", "error", "info", "log", "trace", "warn"].map((name) => [name, () => {}]));
var module = {exports: {}};
"""
# The bundle defines parse_mermaid(text), which answers the diagram as JSON or throws.
ASK = "var answer; parse_mermaid({}).then((graph) => answer = graph, (error) => answer = 'refused: ' + error.message)"


class Mermaid:
    """Mermaid's parser, from mermaid-parser-py, in the JavaScript engine quickjs-ng."""

    def __init__(self) -> None:
        try:
            bundle = distribution("mermaid-parser-py").locate_file("mermaid_parser/js/parser.bundle.js")
        except PackageNotFoundError:
            pytest.skip("needs the package mermaid-parser-py")
        self._context = quickjs.Context()
        self._context.eval(BROWSER)
        self._context.eval(Path(str(bundle)).read_text())

    def parse(self, text: str) -> dict[str, Any]:
        """Return a diagram's kind and content; raise ValueError with the parser's message if it is invalid."""
        self._context.eval(ASK.format(json.dumps(text)))
        while self._context.execute_pending_job():
            pass
        answer = self._context.eval("answer")
        if answer.startswith("refused: "):
            raise ValueError(answer)
        parsed: dict[str, Any] = json.loads(answer)
        return parsed


@pytest.fixture(scope="module")
def mermaid() -> Mermaid:
    return Mermaid()


@pytest.mark.parametrize("text", DIAGRAMS)
def test_a_diagram_parses(mermaid: Mermaid, text: str) -> None:
    assert mermaid.parse(text)["graph_type"] in {"flowchart-v2", "sequence"}


def test_a_broken_diagram_is_refused(mermaid: Mermaid) -> None:
    with pytest.raises(ValueError, match=r"(?s)Parse error.*picker\(the picker"):
        mermaid.parse("flowchart LR\n    envoy[Envoy] -->\n    picker(the picker\n")


def test_the_architecture_is_drawn(mermaid: Mermaid) -> None:
    drawn = DIAGRAM.findall((ROOT / "docs" / "architecture.md").read_text())
    assert {mermaid.parse(text)["graph_type"] for text in drawn} == {"flowchart-v2", "sequence"}
