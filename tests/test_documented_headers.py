"""docs/epp.md documents every header that the picker reads or sets."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Names with a prefix of their own. Those of HTTP itself need no explanation.
HEADER = re.compile(r"(?:x|epp|test-epp)-[a-z][a-z0-9-]*[a-z0-9]")
OF_HTTP = {"x-content-type-options"}


def constants(file: Path) -> set[str]:
    found = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
    texts = (value.decode("latin-1") if isinstance(value, bytes) else value for value in found)
    return {text.lower() for text in texts if isinstance(text, str) and HEADER.fullmatch(text.lower())}


def test_every_header_is_documented_and_no_other() -> None:
    _, _, after = (ROOT / "docs" / "epp.md").read_text().partition("\n## Headers\n")
    written = set(re.findall(r"`([\w-]+)`", after.partition("\n### ")[0]))
    named = {name for file in (ROOT / "epp").rglob("*.py") for name in constants(file)} - OF_HTTP
    assert len(named) > 15
    assert {name for name in written if HEADER.fullmatch(name)} == named
