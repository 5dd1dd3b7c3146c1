import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp import openai
from epp.exceptions import BadRequestError


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (body(messages=[{"role": "user", "content": "hi"}]), b"<|im_start|>user\nhi<|im_end|>\n"),
        (
            body(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]),
            b"<|im_start|>user\na<|im_end|>\n",
        ),
        (body(messages=[{"role": "assistant", "content": None}]), b"<|im_start|>assistant\n<|im_end|>\n"),
        (body(prompt="hi"), b"hi"),
        (body(prompt=["a", "b"]), b"a\nb"),
        (body(prompt=[1, 2, 3]), b""),
        (body(input="embed me"), b"embed me"),
        (body(), b""),
    ],
)
def test_the_prompt_is_found(raw: bytes, expected: bytes) -> None:
    assert openai.parse_body(raw).text == expected


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": 3}', b'{"messages": []}', b'{"model": ""}']
)
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="request body"):
        openai.parse_body(raw)


def test_a_rewrite_touches_the_model_alone() -> None:
    raw = b'{"seed": 12345678901234567890, "model": "a", "x": [1.10,  {"b":2}], "text": "\\u00e9"}'
    rewritten = openai.rewrite_model(raw, "b")
    assert json.loads(rewritten) == {**json.loads(raw), "model": "b"}
    assert b"[1.10,  {" in rewritten
    assert b"12345678901234567890" in rewritten


@pytest.mark.parametrize("value", ["NaN", "Inf", "-1", "abc", "", "1e999"])
def test_an_objective_that_is_no_duration_is_refused_by_name(value: str) -> None:
    with pytest.raises(BadRequestError, match="x-slo-ttft-ms"):
        openai.objective_ms({"x-slo-ttft-ms": value}, openai.TTFT_HEADERS)


def test_objectives_have_two_names_and_zero_means_none() -> None:
    headers = {"x-slo-ttft-ms": "100", "x-llm-d-slo-ttft-ms": "200.5"}
    assert openai.objective_ms(headers, openai.TTFT_HEADERS) == 200.5
    assert openai.objective_ms({"x-slo-tpot-ms": "0"}, openai.TPOT_HEADERS) is None
    assert openai.objective_ms({}, openai.TPOT_HEADERS) is None


def test_prediction_is_asked_for_in_gos_words() -> None:
    assert openai.wants_prediction({"x-prediction-based-scheduling": "T"})
    assert not openai.wants_prediction({})
    with pytest.raises(BadRequestError, match="yes"):
        openai.wants_prediction({"x-prediction-based-scheduling": "yes"})


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        openai.parse_body(raw)
