import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.exceptions import BadRequestError
from epp.request import openai


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (body(messages=[{"role": "user", "content": "hi"}]), "<|im_start|>user\nhi<|im_end|>\n"),
        (
            body(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]),
            "<|im_start|>user\na<|im_end|>\n",
        ),
        (body(messages=[{"role": "assistant", "content": None}]), "<|im_start|>assistant\n<|im_end|>\n"),
        (body(prompt="hi"), "hi"),
        (body(prompt=["a", "b"]), "a\nb"),
        (body(prompt=[1, 2, 3]), "1,2,3"),
        (body(input="embed me"), "embed me"),
        (body(), ""),
    ],
)
def test_the_prompt_is_found(raw: bytes, expected: str) -> None:
    assert openai.parse_body(raw).text == expected


@pytest.mark.parametrize("raw", [b"{}", b'{"model": 3}', b'{"messages": []}', b'{"model": ""}', b'{"model": null}'])
def test_a_body_need_not_name_a_model(raw: bytes) -> None:
    assert openai.parse_body(raw).model == openai.parse_token_ids(raw).model == ""


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"null", b"\xff\xfe"])
def test_a_body_that_is_no_request_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="request body"):
        openai.parse_body(raw)


def test_a_rewrite_touches_the_model_alone() -> None:
    raw = b'{"seed": 12345678901234567890, "model": "a", "x": [1.10,  {"b":2}], "text": "\\u00e9"}'
    rewritten = openai.rewrite_model(raw, "b")
    assert json.loads(rewritten) == {**json.loads(raw), "model": "b"}
    assert b"[1.10,  {" in rewritten
    assert b"12345678901234567890" in rewritten


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        openai.parse_body(raw)


def test_a_body_nested_without_end_is_refused() -> None:
    with pytest.raises(BadRequestError, match="request body"):
        openai.parse_body(b'{"model": "m", "prompt": ' + b"[" * 100_000)
