"""Tests of a changing repository: versions, control modes, refused models, and shutdown under load."""

import asyncio
import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import Draft, open_store
from tests.live import PATIENCE_S, call, until
from tests.predictor.models import draft, pair, running_predictor
from tests.predictor.process import predictor_process
from tests.predictor.test_v1 import ROW, SUM
from tests.predictor.triton_models import doubling, external, put, two_by_two


def doubled(url: str, version: int | None = None) -> Any:
    path = "/v2/models/doubling" + (f"/versions/{version}" if version else "") + "/infer"
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    status, answer = call(url + path, {"inputs": [tensor]})
    return answer["outputs"][0]["data"][0] if status == 200 else answer["error"]


def index(url: str, name: str) -> dict[str, tuple[str, str]]:
    entries = call(f"{url}/v2/repository/index", {})[1]
    return {entry["version"]: (entry["state"], entry["reason"]) for entry in entries if entry["name"] == name}


def test_a_plain_folder_is_served_updated_and_removed(tmp_path: Path) -> None:
    with running_predictor(tmp_path) as url:
        put(tmp_path, "doubling", 1, doubling())
        until(lambda: doubled(url) == 2.0)
        put(tmp_path, "doubling", 2, doubling(3.0))
        until(lambda: doubled(url) == 3.0)
        assert "no version 1" in doubled(url, 1)
        for version in (1, 2):
            (tmp_path / "doubling" / str(version) / "model.onnx").unlink()
            (tmp_path / "doubling" / str(version)).rmdir()
        until(lambda: "no model" in str(doubled(url)))


def test_a_trainers_version_is_not_served_before_a_generation_names_it(tmp_path: Path) -> None:
    """The store's state is that of a trainer that died between writing a version and moving the pointer."""
    written = tmp_path / "written"
    open_store(str(written)).publish(pair(1.0))
    for file in written.glob("*.json"):
        file.unlink()
    put(written, "doubling", 1, doubling())
    with running_predictor(written) as url:
        assert doubled(url) == 2.0
        assert call(f"{url}/v1")[1]["models"] == ["doubling"]


def test_a_plain_model_of_single_columns_is_served_at_v1(tmp_path: Path) -> None:
    put(tmp_path, "doubling", 1, doubling())
    put(tmp_path, "two", 1, two_by_two())
    with running_predictor(tmp_path) as url:
        assert call(f"{url}/v1/doubling", {"rows": [{"x": 1}, {"x": -2}]})[1]["y"] == [2, -4]
        assert call(f"{url}/v1/doubling")[1]["example"] == {"x": 1}
        status, answer = call(f"{url}/v1/two", {"left": 1})
        assert (status, "/v2/models/two/infer" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("policy", "config", "expected"),
    [
        ((), None, {3}),
        ((), "version_policy { latest { num_versions: 2 } }", {2, 3}),
        ((), "version_policy { all {} }", {1, 2, 3}),
        ((), "version_policy { specific { versions: [1, 3] } }", {1, 3}),
        (("all",), None, {1, 2, 3}),
        (("doubling=specific:2",), "version_policy { all {} }", {2}),
        (("latest:1", "other=all"), "version_policy { all {} }", {3}),
    ],
)
def test_a_version_policy_chooses_the_served_versions(
    tmp_path: Path, policy: tuple[str, ...], config: str | None, expected: set[int]
) -> None:
    from predictor.versions import parse_policies

    for version in (1, 2, 3):
        put(tmp_path, "doubling", version, doubling(float(version)), config)
    with running_predictor(tmp_path, version_policy=parse_policies(policy)) as url:
        assert {int(version) for version in index(url, "doubling")} == expected
        assert {doubled(url, version) for version in expected} == {float(version) for version in expected}


def test_a_version_policy_chooses_among_published_versions_too(tmp_path: Path) -> None:
    from predictor.versions import parse_policies

    store = open_store(str(tmp_path))
    for factor in (1.0, 2.0, 3.0):
        store.publish(pair(factor))
    with running_predictor(tmp_path, version_policy=parse_policies(["latest:2"])) as url:
        assert set(index(url, "ttft")) == {"2", "3"}
        store.rollback(2)
        until(lambda: set(index(url, "ttft")) == {"1", "2"})
        assert call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"] == 2 * SUM


REFUSED: list[tuple[bytes, str | None, str]] = [
    (b"", None, "not an ONNX model"),
    (doubling()[:-20], None, "doubling/1"),
    (external(), None, "outside the model"),
    (doubling(domain="com.microsoft", operator="FusedGemm"), None, "com.microsoft"),
    (doubling(float("nan")), None, "non-finite numbers"),
    (b"x" * 70_000, None, "the limit is 65536"),
    (doubling(), 'platform: "tensorflow_savedmodel"', "tensorflow_savedmodel"),
    (doubling(), 'name: "other"', "other"),
    (doubling(), "max_batch_size: many", "config.pbtxt"),
    (doubling(), 'input { name: "z" data_type: TYPE_FP32 dims: 1 }', "contradict"),
    (doubling(), 'default_model_filename: "../../x"', "is a path"),
]


@pytest.mark.parametrize(("data", "config", "reason"), REFUSED)
def test_a_bad_models_refusal_is_shown_until_the_model_is_fixed(
    tmp_path: Path, data: bytes, config: str | None, reason: str
) -> None:
    put(tmp_path, "doubling", 1, data, config)
    put(tmp_path, "two", 1, two_by_two())
    with running_predictor(tmp_path, max_model_bytes=65536) as url:
        for _ in range(3):
            ((state, shown),) = index(url, "doubling").values()
            assert state == "UNAVAILABLE"
            assert reason in shown
            call(f"{url}/reload", b"")
        assert index(url, "two") == {"1": ("READY", "")}
        assert reason in call(f"{url}/status")[1]["last_error"]
        (tmp_path / "doubling" / "config.pbtxt").unlink(missing_ok=True)
        put(tmp_path, "doubling", 2, doubling())
        # Version 1 may be served first: some versions are valid once their config.pbtxt is removed.
        until(lambda: index(url, "doubling") == {"2": ("READY", "")})
        assert doubled(url) == 2.0
        until(lambda: call(f"{url}/status")[1]["last_error"] is None)


def test_a_partly_copied_file_is_served_once_it_is_whole(tmp_path: Path) -> None:
    whole = doubling()
    with running_predictor(tmp_path) as url:
        put(tmp_path, "doubling", 1, whole[: len(whole) // 2])
        until(lambda: "UNAVAILABLE" in dict(index(url, "doubling").values()))
        (tmp_path / "doubling" / "1" / "model.onnx").write_bytes(whole)
        until(lambda: doubled(url) == 2.0)


def test_the_old_version_keeps_serving_when_a_new_one_is_bad(tmp_path: Path) -> None:
    put(tmp_path, "doubling", 1, doubling())
    with running_predictor(tmp_path) as url:
        put(tmp_path, "doubling", 2, b"bad")
        until(lambda: "2" in index(url, "doubling"))
        assert index(url, "doubling")["1"] == ("READY", "")
        assert doubled(url) == 2.0


def test_a_model_that_hangs_while_loading_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one model's file hangs, as on a network share that is gone."""
    from predictor import triton_folders

    hang, read = threading.Event(), triton_folders._read

    def slow(path: Path, name: str, version: int, limit_bytes: int) -> bytes:
        if name == "stuck":
            hang.wait(30)
        return read(path, name, version, limit_bytes)

    monkeypatch.setattr(triton_folders, "_read", slow)
    with running_predictor(tmp_path) as url:
        put(tmp_path, "stuck", 1, doubling())
        until(lambda: index(url, "stuck") == {"": ("LOADING", "")})
        put(tmp_path, "doubling", 1, doubling())
        until(lambda: doubled(url) == 2.0)
        open_store(str(tmp_path)).publish(pair(1.0))
        until(lambda: call(f"{url}/readyz")[0] == 200)
        assert index(url, "stuck") == {"": ("LOADING", "")}
        hang.set()
        until(lambda: index(url, "stuck") == {"1": ("READY", "")})


def test_loaded_models_keep_serving_when_the_store_vanishes(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    open_store(str(folder)).publish(pair(1.0))
    with running_predictor(folder) as url:
        folder.rename(tmp_path / "away")
        until(lambda: "is it mounted" in (call(f"{url}/status")[1]["last_error"] or ""))
        assert call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"] == SUM
        (tmp_path / "away").rename(folder)
        open_store(str(folder)).publish(pair(2.0))
        until(lambda: call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"] == 2 * SUM)
        assert call(f"{url}/status")[1]["last_error"] is None


def test_models_published_together_are_swapped_together(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        store.publish([draft("ttft", 2.0), Draft(draft("tpot", 2.0).manifest, b"bad")])
        until(lambda: "tpot" in (call(f"{url}/status")[1]["last_error"] or ""))
        assert call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"] == SUM
        # A publication of one model makes the two separate units: from now on each loads by itself.
        store.publish([draft("tpot", 3.0)])
        until(lambda: "1" not in index(url, "tpot"))
        until(lambda: call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"] == 2 * SUM)


@pytest.mark.parametrize("mode", ["none", "explicit"])
def test_only_polling_follows_the_store(tmp_path: Path, mode: str) -> None:
    put(tmp_path, "doubling", 1, doubling())
    with running_predictor(tmp_path, model_control_mode=mode, load_model=("*",)) as url:
        assert doubled(url) == 2.0
        put(tmp_path, "doubling", 2, doubling(5.0))
        assert call(f"{url}/reload", b"")[1]["synced"] is False
        assert doubled(url) == 2.0
        status, _ = call(f"{url}/v2/repository/models/doubling/load", {})
        assert (status, doubled(url)) == ((409, 2.0) if mode == "none" else (200, 5.0))


def test_requests_in_flight_on_a_removed_version_finish(tmp_path: Path) -> None:
    """A request's first bytes select its model; its last bytes are sent after the model was removed."""
    put(tmp_path, "doubling", 1, doubling())
    with running_predictor(tmp_path, model_control_mode="explicit", load_model=("*",)) as url:
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [4]}]}).encode()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.putrequest("POST", "/v2/models/doubling/versions/1/infer")
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body[:10])
            # The server reads in order: once it answers this request, it has seen the bytes above.
            until(lambda: doubled(url) == 2.0)
            assert call(f"{url}/v2/repository/models/doubling/unload", {})[0] == 200
            assert "loaded" in doubled(url)
            connection.send(body[10:])
            answer = json.loads(connection.getresponse().read())
    assert answer["outputs"][0]["data"] == [8.0]


def hammer(acts: Sequence[Callable[[], object]], stop: threading.Event) -> list[BaseException]:
    failures: list[BaseException] = []

    def repeat(act: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                act()
            except (OSError, http.client.HTTPException):
                # The server may have stopped, but only after `stop` was set.
                if not stop.wait(5):
                    raise

    def guarded(act: Callable[[], object]) -> None:
        try:
            repeat(act)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    return failures


def test_load_unload_and_shutdown_under_load_end_cleanly(tmp_path: Path) -> None:
    put(tmp_path, "doubling", 1, doubling())
    with predictor_process(tmp_path, "--model-control-mode", "explicit", "--load-model", "*") as running:
        answers: list[Any] = []
        base = f"{running.url}/v2/repository/models/doubling"
        acts = [
            lambda: answers.append(doubled(running.url)),
            lambda: answers.append(doubled(running.url)),
            lambda: call(f"{base}/load", {}),
            lambda: call(f"{base}/unload", {}),
        ]
        stop = threading.Event()

        def end() -> None:
            until(lambda: len(answers) > 200)
            stop.set()
            running.process.send_signal(signal.SIGTERM)

        ending = threading.Thread(target=end)
        ending.start()
        failures = hammer(acts, stop)
        ending.join()
        output, _ = running.process.communicate(timeout=PATIENCE_S)
    assert not failures
    assert running.process.returncode == 0, output
    assert "Traceback" not in output
    assert {2.0} <= set(answers)
    assert all(answer == 2.0 or "loaded" in answer for answer in answers)


@pytest.mark.slow
def test_memory_stays_flat_over_swaps(tmp_path: Path) -> None:
    import psutil

    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with predictor_process(tmp_path) as running:
        process = psutil.Process(running.process.pid)
        resident = []
        for factor in range(1, 151):
            store.publish(pair(float(factor)))
            store.collect()
            assert call(f"{running.url}/reload", b"")[1]["last_error"] is None
            if factor % 50 == 0:
                resident.append(process.memory_info().rss)
    # 40 KiB a swap. Measured are 11 KiB, and less than 2 from the hundredth swap on.
    assert resident[2] - resident[0] < 4 << 20


async def test_a_slow_client_delays_no_other(tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        host, port = url.removeprefix("http://").split(":")
        waiting = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
        for _, writer in waiting:
            writer.write(b"POST /v1/ttft HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        for _ in range(20):
            answer = await asyncio.to_thread(call, f"{url}/v1/ttft", ROW)
            assert answer[0] == 200
        for _, writer in waiting:
            writer.close()


async def test_a_body_that_does_not_arrive_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.bodies.BODY_TIMEOUT_S", 0.05)
    open_store(str(tmp_path)).publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(1000), PATIENCE_S)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive" in answer


def test_numpy_and_the_server_agree_on_a_large_batch(tmp_path: Path) -> None:
    put(tmp_path, "doubling", 1, doubling())
    values = np.random.default_rng(0).normal(size=900).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [900, 1], "data": values.tolist()}
    with running_predictor(tmp_path) as url:
        answer = call(f"{url}/v2/models/doubling/infer", {"inputs": [tensor]})[1]
    np.testing.assert_array_equal(np.array(answer["outputs"][0]["data"], dtype=np.float32), 2 * values)
