import datetime
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from epp.scheduling.configuration.document import DocumentError, read_document


def failure(text: str) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read_document(text)
    return caught.value


def test_each_value_has_its_line() -> None:
    text = "a: 1\nb:\n- x: {y: 2}\n\n- z:\n    deep: 3\n"
    document = read_document(text)
    assert document.value == {"a": 1, "b": [{"x": {"y": 2}}, {"z": {"deep": 3}}]}
    lines = {"$": 1, "$.a": 1, "$.b": 2, "$.b[0].x.y": 3, "$.b[1].z": 5, "$.b[1].z.deep": 6}
    assert {path: document.lines[path] for path in lines} == lines


def test_an_error_about_a_missing_value_has_the_line_of_its_parent() -> None:
    document = read_document("a:\n  b:\n  - c: 1\n")
    error = document.error("missing", "$.a.b[0].d.e")
    assert (error.line, error.path, str(error)) == (3, "$.a.b[0].d.e", "line 3: $.a.b[0].d.e: missing")


def test_json_is_read_too() -> None:
    assert read_document('{"a": [1, "x", null, true]}').value == {"a": [1, "x", None, True]}


def test_anchors_and_merge_keys_are_understood() -> None:
    text = "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\ntwo:\n  <<: [{c: 5}, *base]\n"
    document = read_document(text)
    assert document.value["mine"] == {"a": 1, "b": 3}
    assert document.value["two"] == {"a": 1, "b": 2, "c": 5}


@pytest.mark.parametrize(
    ("text", "line", "path", "problem"),
    [
        ("", None, "$", "empty"),
        ("a: 1\nb: [\n", 3, "$", "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "$", "single document"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "$.a.b", "twice"),
        ("a:\n  - 1: x\n", 2, "$.a[0]", "expected a string as the key"),
        ("a: 1\n? [x]\n: 2\n", 2, "$", "expected a string as the key"),
        ("a:\n  w: .nan\n", 2, "$.a.w", "finite"),
        ("a: -.inf\n", 1, "$.a", "finite"),
        ("a: &x [*x]\n", 1, "$.a[0]", "nested"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "$", "not allowed"),
        ("a: *nobody\n", 1, "$", "undefined alias"),
        ("a:\n  <<: 3\n", 2, "$.a", "expected a mapping"),
        ("a: 2026-99-99\n", None, "$", "not YAML"),
        ("a: 1\nb: \x00\n", 2, "$", "not allowed"),
        ("a: \ud800", None, "$", "not YAML"),
    ],
)
def test_errors_have_line_and_path(text: str, line: int | None, path: str, problem: str) -> None:
    error = failure(text)
    assert problem in error.problem
    assert error.line == line
    assert error.path.startswith(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{name}: &{name} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]\n"
            for last, name in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: " + "[" * 1500 + "]" * 1500,
        "a: " + "x" * (1 << 18),
        "a: [" + "1," * 20_000 + "1]",
        "a: " + "9" * 5000,
    ],
    ids=["aliases of aliases", "nesting", "length", "values", "digits"],
)
def test_a_document_over_the_limits_is_refused(text: str) -> None:
    failure(text)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), texts)
keys = st.from_regex(r"[a-zA-Z][a-zA-Z]{0,5}", fullmatch=True)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


@given(tree=trees, flow=st.booleans())
def test_every_written_value_is_read_with_its_line(tree: Any, flow: bool) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True)
    document = read_document(text)
    assert document.value == tree
    assert all(1 <= line <= text.count("\n") + 1 for line in document.lines.values())


@given(text=st.text(max_size=40) | st.from_regex(r"([-?:,\[\]{}#&*!|>'\"% \na1]){0,25}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = read_document(text).value
    except DocumentError:
        return
    assert isinstance(value, dict | list | str | int | float | bool | bytes | datetime.date | set | None)
