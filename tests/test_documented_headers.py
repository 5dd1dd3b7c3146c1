"""Every header that a server reads or sets stands in docs/epp.md or docs/reference-headers.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Names with a prefix of their own, wherever they stand.
HEADER = re.compile(r"(?:x|epp|test-epp)-[a-z][a-z0-9-]*[a-z0-9]")
# Servers that speak ASGI write names as bytes. Python's names have no hyphen.
HYPHENATED = re.compile(r"[a-z]+(?:-[a-z0-9]+)+")
# Values of headers, in bytes as well.
VALUES = {"gzip", "no-referrer", "same-origin"}
# What the picker reads in answers of model servers, to find where they end and whether they redirect.
OF_MODEL_SERVERS = {"location", "transfer-encoding"}
FOLDERS = ("epp", "headroom", "serving", "predictor", "trainer", "model_store", "simulator")
# A header of the live page, which is none that the picker routes by.
OF_PAGES = {"x-content-type-options"}
# OpenTelemetry's library reads and writes it.
BY_LIBRARIES = {"traceparent"}


def text_of(node: ast.AST | None) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text.lower()
        case ast.Constant(value=bytes(raw)):
            return raw.decode("latin-1").lower()
    return ""


def own_headers(tree: ast.AST) -> set[str]:
    """Return the names with a prefix of their own."""
    return {text for node in ast.walk(tree) if HEADER.fullmatch(text := text_of(node))}


def headers(tree: ast.AST) -> set[str]:
    """Return the names of all headers that a module reads or sets."""
    return {name for node in ast.walk(tree) for name in _headers(node) if name} - VALUES


def _headers(node: ast.AST) -> Iterator[str]:
    text = text_of(node)
    if HEADER.fullmatch(text):
        yield text
    match node:
        case ast.Constant(value=bytes()) if HYPHENATED.fullmatch(text):
            yield text
        # (b"name", b"value")
        case ast.Tuple(elts=[ast.Constant(value=bytes()) as first, _]) if re.fullmatch("[a-z-]+", text_of(first)):
            yield text_of(first)
        # header(scope, b"name") and headers.get("name")
        case ast.Call(func=function, args=[*_, ast.Constant() as last]) if ast.unparse(function).endswith("header"):
            yield text_of(last)
        case ast.Call(func=ast.Attribute(value=place, attr="get"), args=[ast.Constant() as first, *_]):
            if ast.unparse(place).endswith("headers"):
                yield text_of(first)
        # headers = {"name": ...} and Response(..., {"name": ...})
        case ast.Assign(targets=[ast.Name(id=variable)], value=value) if "header" in variable:
            yield from keys_in(value)
        case ast.Call(func=function, args=args) if ast.unparse(function).endswith("Response"):
            for argument in args:
                yield from keys_in(argument)
        case ast.keyword(arg="headers", value=value):
            yield from keys_in(value)
        case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Constant() as name) if variable.endswith("_HEADER"):
            yield text_of(name)


def keys_in(node: ast.AST) -> Iterator[str]:
    """Yield the texts that are keys of a dict anywhere in this expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from map(text_of, part.keys)


def trees(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            yield ast.parse(file.read_text())


def written_for_the_picker() -> set[str]:
    _, _, after = (DOCS / "epp.md").read_text().partition("\n## Headers\n")
    return {name.lower() for name in re.findall(r"`([\w-]+)`", after.partition("\n### ")[0])}


def written_for_others() -> set[str]:
    """Return the names in the first column of the page's tables."""
    cells = re.findall(r"^\| (`.*?`) \| ", (DOCS / "reference-headers.md").read_text(), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}


def test_the_picker_s_own_headers_are_documented_and_no_other() -> None:
    named = {name for tree in trees("epp") for name in own_headers(tree)} - OF_PAGES
    assert len(named) > 15
    assert {name for name in written_for_the_picker() if HEADER.fullmatch(name)} == named


def test_every_header_of_every_server_is_documented_and_no_other() -> None:
    named = {name for tree in trees(*FOLDERS) for name in headers(tree) if not name.startswith(":")}
    named -= OF_MODEL_SERVERS
    assert {"inference-header-content-length", "idempotency-key", "x-headroom-policy", "retry-after"} <= named
    assert named - written_for_the_picker() - written_for_others() == set()
    assert written_for_others() - named - BY_LIBRARIES == set()


def test_headers_are_found_in_code() -> None:
    code = """
header(scope, b"Accept-Encoding")
headers.get("location", "")
sent = [(b"retry-after", b"1")]
_KEY_HEADER = "idempotency-key"
headers = {"x-inference-pod": name, **more}
Response(body, headers={"content-disposition": name})
plugin = "queue-scorer"
"""
    found = {"accept-encoding", "location", "retry-after", "idempotency-key", "x-inference-pod", "content-disposition"}
    assert headers(ast.parse(code)) == found
