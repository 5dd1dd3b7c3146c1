"""Tests of the Open Inference Protocol over plain HTTP: bad requests are refused with the name of the tensor."""

import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.live import PATIENCE_S, call
from tests.predictor.models import pair, running_predictor
from tests.predictor.triton_models import doubling, put, two_by_two

TWO = "/v2/models/two/infer"
DOUBLING = "/v2/models/doubling/infer"
BOUNDED = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from model_store import open_store

    folder = tmp_path_factory.mktemp("store")
    open_store(str(folder)).publish(pair(1.0))
    put(folder, "two", 1, two_by_two())
    put(folder, "doubling", 1, doubling())
    with running_predictor(folder) as running:
        yield running


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes, str | None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return response.status, response.read(), response.headers["inference-header-content-length"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), None


def left(**changes: Any) -> dict[str, Any]:
    return {"name": "left", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}


def right(**changes: Any) -> dict[str, Any]:
    return {"name": "right", "datatype": "INT64", "shape": [1], "data": [10], **changes}


def test_nested_and_flat_data_agree(url: str) -> None:
    for data in ([1, 2], [[1, 2]], [[1.0], [2.0]]):
        status, answer = call(url + TWO, {"id": "x", "inputs": [left(data=data), right()]})
        assert status == 200
        assert answer["outputs"][0] == {"name": "total", "datatype": "FP32", "shape": [1, 2], "data": [11, 12]}
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("x", "two", "1")


BAD: list[tuple[list[Any], str]] = [
    ([left()], "right"),
    ([left(), right(), {"name": "up", "datatype": "FP32", "shape": [1], "data": [1]}], "up"),
    ([left(), left(), right()], "given twice"),
    ([left(shape=[2]), right()], "expected shape [-1, 2]"),
    ([left(shape=[1, 3]), right()], "expected shape [-1, 2]"),
    ([left(shape=[-1, 2]), right()], "1 to 1000 rows"),
    ([left(shape=[0, 2], data=[]), right(shape=[0], data=[])], "1 to 1000 rows"),
    ([left(shape=[1001, 2], data=[1] * 2002), right(shape=[1001], data=[1] * 1001)], "1 to 1000 rows"),
    ([left(data=[1]), right()], "1 elements"),
    ([left(data=["a", "b"]), right()], "left"),
    ([left(data=[True, False]), right()], "left"),
    ([left(data=[None, 1]), right(data=[None])], "right"),
    ([left(data=[[1], [2, 3]]), right()], "left"),
    ([left(data=[{}, 1]), right()], "left"),
    ([left(data=[1, 10**400]), right()], "left"),
    ([left(), right(data=[1.5])], "INT64"),
    ([left(), right(data=[2**63])], "INT64"),
    ([left(datatype="FP64"), right()], "expected datatype FP32"),
    ([left(datatype="BYTES"), right()], "BYTES"),
    ([left(data=None), right()], "neither data"),
    ([left(parameters={"binary_data_size": 8}), right()], "both data"),
    ([left(data=None, parameters={"binary_data_size": 8}), right()], "0 bytes are left"),
    ([left(data=None, parameters={"binary_data_size": -8}), right()], "binary_data_size"),
    ([left(shape="wide"), right()], "shape"),
    ([7], "inputs"),
]


@pytest.mark.parametrize(("inputs", "expected"), BAD)
def test_an_input_error_names_its_tensor(url: str, inputs: list[Any], expected: str) -> None:
    status, answer = call(url + TWO, {"inputs": inputs})
    assert status == 400
    assert expected in answer["error"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(float("inf"), "finite"), (-1.0, "at least 0"), (1.5, "at most 1"), (float("nan"), "finite")],
)
def test_a_manifests_ranges_apply_to_raw_bytes_too(url: str, value: float, expected: str) -> None:
    names = ["kv_cache_percentage", "input_token_length", "num_request_waiting", "num_request_running"]
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}}
        for name in [*names, "prefix_cache_score"]
    ]
    head = json.dumps({"inputs": tensors}).encode()
    body = head + np.array([value, 0, 0, 0, 0], dtype="<f4").tobytes()
    length = {"inference_header_content_length": str(len(head))}
    status, answer, _ = post(f"{url}/v2/models/ttft/infer", body, **length)
    assert status == 400
    assert b"kv_cache_percentage" in answer
    assert expected in answer.decode()


@pytest.mark.parametrize("path", ["/v2/models/absent/infer", "/v2/models/two/versions/9/infer", "/v2/models/absent"])
def test_an_unknown_model_or_version_is_a_404_that_lists_the_loaded_ones(url: str, path: str) -> None:
    status, answer = call(url + path, {"inputs": [left(), right()]} if path.endswith("infer") else None)
    assert status == 404
    assert "loaded: " in answer["error"]


@pytest.mark.parametrize("path", ["/v2/models/two/versions/one/infer", f"/v2/models/two/versions/{'9' * 40}/infer"])
def test_a_version_that_is_not_a_number_is_a_400(url: str, path: str) -> None:
    status, answer = call(url + path, {"inputs": []})
    assert (status, "version" in answer["error"]) == (400, True)


@pytest.mark.parametrize("path", ["/nowhere", "/v2/models/two/infer", "/v2/nothing/at/all"])
def test_an_unknown_path_or_method_is_answered_in_json(url: str, path: str) -> None:
    status, answer = call(url + path)
    assert status in (404, 405)
    assert path in answer["error"]


@pytest.mark.parametrize("path", ["/v1/ttft", "/predict", "/predict/bulk/strict", TWO])
def test_a_truncated_or_invalid_gzip_body_is_refused(url: str, path: str) -> None:
    packed = gzip.compress(json.dumps({"inputs": [left(), right()]}).encode())
    for body in (packed[:-12], b"not gzip", packed[:5]):
        assert post(url + path, body, content_encoding="gzip")[0] == 400
    assert post(url + path, packed, content_encoding="br")[0] == 415


def test_a_body_that_decompresses_over_the_limit_is_refused(url: str) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    status, answer, _ = post(url + TWO, bomb, content_encoding="gzip")
    assert (status, b"larger than" in answer) == (413, True)


def test_deeply_nested_json_is_refused(url: str) -> None:
    deep = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":'
        + b"[" * 50_000
        + b"1"
        + b"]" * 50_000
        + b"}]}"
    )
    assert post(url + DOUBLING, deep)[0] == 400
    fairly = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":' + b"[" * 100 + b"1" + b"]" * 100 + b"}]}"
    assert post(url + DOUBLING, fairly)[0] == 400


@BOUNDED
@given(arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_binary_and_json_answers_are_the_same_numbers(url: str, values: Any) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values), 1]}
    written = call(url + DOUBLING, {"inputs": [{**tensor, "data": values.tolist()}]})[1]["outputs"][0]["data"]
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    length = {"inference_header_content_length": str(len(head))}
    status, answer, answer_head = post(url + DOUBLING, head + values.tobytes(), **length)
    assert status == 200
    raw = np.frombuffer(answer[int(answer_head or 0) :], "<f4")
    np.testing.assert_array_equal(raw, 2 * values)
    np.testing.assert_array_equal(np.array(written, dtype=np.float32), 2 * values)


TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["left", "right", "x", ""]),
        "datatype": st.sampled_from(["FP32", "INT64", "BOOL", "FP16", "BYTES", ""]),
        "shape": st.lists(st.integers(-2, 2**62), max_size=3),
    },
    optional={
        "data": st.lists(st.none() | st.integers() | st.floats() | st.booleans() | st.lists(st.integers()), max_size=4),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "classification"]), st.integers(-1, 2**62) | st.text(max_size=3)
        ),
    },
)


@BOUNDED
@given(
    st.lists(TENSORS, max_size=3),
    st.binary(max_size=64),
    st.none() | st.integers(-10, 400).map(str) | st.text("0123456789x", max_size=30),
)
def test_any_binary_request_is_answered_or_refused(url: str, inputs: Any, tail: bytes, length: str | None) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    headers = {} if length is None else {"inference_header_content_length": length or str(len(head))}
    status, answer, _ = post(url + TWO, head + tail, **headers)
    assert status in (200, 400)
    assert status == 200 or json.loads(answer)["error"]


@BOUNDED
@given(st.binary(max_size=300))
def test_any_bytes_are_answered_or_refused(url: str, body: bytes) -> None:
    for path in (TWO, "/v1/ttft", "/predict", "/predict/bulk", "/v2/repository/index"):
        assert post(url + path, body)[0] in (200, 400, 422)
