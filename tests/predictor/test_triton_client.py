"""Tests of a predictor process with Triton's official clients: HTTP and gRPC, blocking and asyncio."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from model_store import SCHEMAS, open_store
from tests.predictor.models import pair
from tests.predictor.process import Predictor, predictor_process
from tests.predictor.triton_models import put, two_by_two

LEFT = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
RIGHT = np.array([10, 20, 30], dtype=np.int64)
TOTAL = LEFT + RIGHT[:, None]
REQUIRED = [feature.name for feature in SCHEMAS["ttft"] if feature.required]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    folder = tmp_path_factory.mktemp("store")
    open_store(str(folder)).publish(pair(2.0))
    put(folder, "two", 1, two_by_two())
    with predictor_process(folder) as running:
        yield running


def two_inputs(client: Any, **binary: bool) -> list[Any]:
    left = client.InferInput("left", LEFT.shape, "FP32")
    right = client.InferInput("right", RIGHT.shape, "INT64")
    left.set_data_from_numpy(LEFT, **binary)
    right.set_data_from_numpy(RIGHT, **binary)
    return [left, right]


def latency_inputs(client: Any) -> list[Any]:
    inputs = [client.InferInput(name, (2, 1), "FP32") for name in REQUIRED]
    for tensor in inputs:
        tensor.set_data_from_numpy(np.full((2, 1), 0.5, dtype=np.float32))
    return inputs


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_http_accepts_and_returns_json_and_binary(
    predictor: Predictor, binary_in: bool, binary_out: bool, compression: str | None
) -> None:
    with triton_http.InferenceServerClient(predictor.http) as client:
        outputs = [triton_http.InferRequestedOutput(name, binary_data=binary_out) for name in ("total", "count")]
        result = client.infer(
            "two",
            two_inputs(triton_http, binary_data=binary_in),
            outputs=outputs,
            request_id="seven",
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
    np.testing.assert_array_equal(result.as_numpy("total"), TOTAL)
    np.testing.assert_array_equal(result.as_numpy("count"), RIGHT[:, None].astype(np.float64))
    assert result.get_response()["id"] == "seven"


def test_http_compresses_a_large_answer_when_asked(predictor: Predictor) -> None:
    rows = np.zeros((500, 2), dtype=np.float32)
    left, right = triton_http.InferInput("left", rows.shape, "FP32"), triton_http.InferInput("right", (500,), "INT64")
    left.set_data_from_numpy(rows)
    right.set_data_from_numpy(np.arange(500))
    with triton_http.InferenceServerClient(predictor.http) as client:
        result = client.infer("two", [left, right], response_compression_algorithm="gzip")
    np.testing.assert_array_equal(result.as_numpy("count")[:, 0], np.arange(500))


def test_http_without_named_outputs_returns_all_in_binary(predictor: Predictor) -> None:
    with triton_http.InferenceServerClient(predictor.http) as client:
        result = client.infer("two", two_inputs(triton_http), model_version="1")
        later = client.async_infer("two", two_inputs(triton_http)).get_result()
    for one in (result, later):
        np.testing.assert_array_equal(one.as_numpy("total"), TOTAL)


def test_a_latency_model_needs_only_its_required_features(predictor: Predictor) -> None:
    with triton_http.InferenceServerClient(predictor.http) as client:
        result = client.infer("ttft", latency_inputs(triton_http))
    np.testing.assert_array_equal(result.as_numpy("ttft_ms"), np.full((2, 1), len(REQUIRED), dtype=np.float32))


def test_http_describes_server_and_models(predictor: Predictor) -> None:
    with triton_http.InferenceServerClient(predictor.http) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("two")
        assert client.is_model_ready("two", "1")
        assert not client.is_model_ready("absent")
        assert "statistics" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("two")
        config = client.get_model_config("two")
        index = client.get_model_repository_index()
    assert metadata["inputs"][0] == {"name": "left", "datatype": "FP32", "shape": [-1, 2]}
    assert metadata["versions"] == ["1"]
    assert config["input"][1] == {"name": "right", "data_type": "TYPE_INT64", "dims": [], "optional": False}
    assert {(entry["name"], entry["state"]) for entry in index} == {(n, "READY") for n in ("ttft", "tpot", "two")}


def test_grpc_describes_server_and_models(predictor: Predictor) -> None:
    with triton_grpc.InferenceServerClient(predictor.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("two")
        assert not client.is_model_ready("two", "9")
        assert "statistics" in client.get_server_metadata().extensions
        metadata = client.get_model_metadata("two")
        config = client.get_model_config("two", as_json=True)["config"]
        index = client.get_model_repository_index()
    assert list(metadata.inputs[0].shape) == [-1, 2]
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert {(entry.name, entry.state) for entry in index.models} == {(n, "READY") for n in ("ttft", "tpot", "two")}


def test_grpc_infers(predictor: Predictor) -> None:
    with triton_grpc.InferenceServerClient(predictor.grpc) as client:
        result = client.infer("two", two_inputs(triton_grpc), request_id="8", compression_algorithm="gzip")
        wanted = [triton_grpc.InferRequestedOutput("count")]
        one = client.infer("two", two_inputs(triton_grpc), outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("total"), TOTAL)
    assert result.get_response().id == "8"
    assert one.as_numpy("total") is None


def test_a_grpc_stream_keeps_order_and_continues_after_a_refusal(predictor: Predictor) -> None:
    answers: list[tuple[Any, Any]] = []
    with triton_grpc.InferenceServerClient(predictor.grpc) as client:
        client.start_stream(callback=lambda result, error: answers.append((result, error)))
        for name in ("two", "absent", "two"):
            client.async_stream_infer(name, two_inputs(triton_grpc))
        client.stop_stream()
    assert [error is None for _, error in answers] == [True, False, True]
    np.testing.assert_array_equal(answers[2][0].as_numpy("total"), TOTAL)


async def test_both_asyncio_clients_infer(predictor: Predictor) -> None:
    async with triton_http_aio.InferenceServerClient(predictor.http) as client:
        over_http = await client.infer("two", two_inputs(triton_http))
    async with triton_grpc_aio.InferenceServerClient(predictor.grpc) as client:
        over_grpc = await client.infer("two", two_inputs(triton_grpc))
    np.testing.assert_array_equal(over_http.as_numpy("total"), TOTAL)
    np.testing.assert_array_equal(over_grpc.as_numpy("total"), TOTAL)


def test_statistics_count_rows_and_batches_and_time(predictor: Predictor) -> None:
    with triton_http.InferenceServerClient(predictor.http) as client:
        before = client.get_inference_statistics("two")["model_stats"][0]
        for _ in range(2):
            client.infer("two", two_inputs(triton_http))
        with pytest.raises(InferenceServerException):
            client.infer("two", two_inputs(triton_http)[:1])
        after = client.get_inference_statistics("two", "1")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 2
    grown = {
        stage: after["inference_stats"][stage]["ns"] - before["inference_stats"][stage]["ns"]
        for stage in ("success", "fail", "compute_input", "compute_infer", "compute_output")
    }
    assert all(ns > 0 for ns in grown.values())
    assert grown["success"] >= grown["compute_input"] + grown["compute_infer"] + grown["compute_output"]
    with triton_grpc.InferenceServerClient(predictor.grpc) as client:
        assert client.get_inference_statistics().model_stats[0].inference_stats.success.count >= 0


def mistakes(client: Any) -> list[tuple[str, list[Any], str]]:
    left, right = two_inputs(client)
    short = client.InferInput("left", (2, 2), "FP32")
    short.set_data_from_numpy(LEFT[:2])
    wide = client.InferInput("left", (3, 3), "FP32")
    wide.set_data_from_numpy(np.zeros((3, 3), dtype=np.float32))
    typed = client.InferInput("left", (3, 2), "FP64")
    typed.set_data_from_numpy(LEFT.astype(np.float64))
    other = client.InferInput("middle", (3, 2), "FP32")
    other.set_data_from_numpy(LEFT)
    text = client.InferInput("left", (3, 2), "BYTES")
    text.set_data_from_numpy(np.array([[b"a", b"b"]] * 3, dtype=np.object_))
    return [
        ("absent", [left, right], "no model 'absent'"),
        ("two", [left], "right"),
        ("two", [short, right], "numbers of rows"),
        ("two", [wide, right], "expected shape"),
        ("two", [typed, right], "expected datatype FP32"),
        ("two", [other, right], "middle"),
        ("two", [left, left, right], "twice"),
        ("two", [text, right], "BYTES"),
    ]


@pytest.mark.parametrize("case", range(8))
def test_an_error_names_its_tensor_over_http_and_grpc(predictor: Predictor, case: int) -> None:
    for module, address in ((triton_http, predictor.http), (triton_grpc, predictor.grpc)):
        model, inputs, expected = mistakes(module)[case]
        with module.InferenceServerClient(address) as client:
            with pytest.raises(InferenceServerException, match=expected):
                client.infer(model, inputs)
            assert client.is_server_live()


UNSERVED: list[Callable[[Any], object]] = [
    lambda client: client.get_system_shared_memory_status(),
    lambda client: client.register_system_shared_memory("r", "/r", 8),
    lambda client: client.get_cuda_shared_memory_status(),
    lambda client: client.get_trace_settings(),
    lambda client: client.update_log_settings({"log_info": False}),
]


@pytest.mark.parametrize("ask", UNSERVED)
def test_unsupported_functions_are_refused(predictor: Predictor, ask: Callable[[Any], object]) -> None:
    for module, address in ((triton_http, predictor.http), (triton_grpc, predictor.grpc)):
        with (
            module.InferenceServerClient(address) as client,
            pytest.raises(InferenceServerException, match="not served"),
        ):
            ask(client)


def test_load_and_unload_are_refused_while_polling(predictor: Predictor) -> None:
    for module, address in ((triton_http, predictor.http), (triton_grpc, predictor.grpc)):
        with module.InferenceServerClient(address) as client:
            for act in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match="not allowed"):
                    act("two")


def test_models_are_loaded_and_unloaded_in_explicit_mode(tmp_path: Path) -> None:
    put(tmp_path, "two", 1, two_by_two())
    put(tmp_path, "two", 3, two_by_two(3.0))
    open_store(str(tmp_path)).publish(pair(1.0))
    flags = ("--model-control-mode", "explicit", "--load-model", "tpot")
    with predictor_process(tmp_path, *flags) as running:
        for module, address in ((triton_http, running.http), (triton_grpc, running.grpc)):
            with module.InferenceServerClient(address) as client:
                assert client.is_model_ready("tpot")
                assert not client.is_model_ready("two")
                client.load_model("two")
                assert client.is_model_ready("two", "3")
                result = client.infer("two", two_inputs(module))
                np.testing.assert_array_equal(result.as_numpy("total"), 3 * TOTAL)
                client.unload_model("two")
                assert not client.is_model_ready("two")
                with pytest.raises(InferenceServerException, match="absent"):
                    client.load_model("absent")
                with pytest.raises(InferenceServerException, match="config"):
                    client.load_model("two", config="{}")
        with triton_http.InferenceServerClient(running.http) as client:
            states = {entry["name"]: (entry["state"], entry["reason"]) for entry in client.get_model_repository_index()}
    assert states["two"] == ("UNAVAILABLE", "unloaded")
    assert states["ttft"] == ("UNAVAILABLE", "not loaded")
