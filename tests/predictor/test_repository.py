import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headroom.processes.ports import free_port
from model_store import Draft, Trust, open_store
from model_store.signing import make_keys
from predictor.engine import Engine, Served
from predictor.exceptions import ModelError
from predictor.published import load_published
from predictor.repository import Repository
from tests.live import PATIENCE_S, call, until
from tests.model_store.places import BucketPlace
from tests.model_store.s3_server import S3Server
from tests.predictor import bombs
from tests.predictor.models import draft, linear_onnx, open_draft, pair, running_predictor
from tests.predictor.test_v1 import ROW, SUM


def ttft(url: str) -> float:
    return float(call(f"{url}/v1/ttft", ROW)[1]["ttft_ms"])


def test_a_new_generation_is_picked_up(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        assert ttft(url) == SUM
        store.publish(pair(3.0))
        until(lambda: ttft(url) == 3 * SUM)
        store.rollback(1)
        until(lambda: ttft(url) == SUM)


def test_a_store_that_appears_later_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with running_predictor(folder) as url:
        assert call(f"{url}/readyz")[0] == 503
        open_store(str(folder)).publish(pair(1.0))
        until(lambda: call(f"{url}/readyz")[0] == 200)


def test_the_old_generation_keeps_serving_and_status_tells_why_a_new_one_is_damaged(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        # The pointer moves after the file was damaged, so that no poll can see the whole file.
        other = open_store(str(tmp_path / "other"))
        other.publish(pair(2.0))
        other.publish(pair(2.0))
        for name in ("ttft", "tpot"):
            (tmp_path / "other" / name / "2").rename(tmp_path / name / "2")
        model = tmp_path / "tpot" / "2" / "model.onnx"
        whole = model.read_bytes()
        model.write_bytes(whole[:-10])
        (tmp_path / "other" / "current.json").rename(tmp_path / "current.json")
        until(lambda: "tpot/2" in (call(f"{url}/status")[1]["last_error"] or ""))
        assert ttft(url) == SUM
        model.write_bytes(whole)
        until(lambda: ttft(url) == 2 * SUM)
        until(lambda: call(f"{url}/status")[1]["last_error"] is None)


def test_a_swap_under_load_fails_no_request(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        answers: list[tuple[int, float]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                status, answer = call(f"{url}/v1/ttft", ROW)
                answers.append((status, answer["ttft_ms"] / SUM - answer["generation"]))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for factor in range(2, 12):
            store.publish(pair(float(factor)))
            expected = float(factor)
            until(lambda expected=expected: ttft(url) == expected * SUM)  # type: ignore[misc]
        stop.set()
        for asker in askers:
            asker.join()
    assert len(answers) > 20
    assert {status for status, _ in answers} == {200}
    assert {difference for _, difference in answers} == {0.0}


def bad_graph() -> Draft:
    manifest = draft("ttft", 1.0).manifest
    return Draft(manifest, linear_onnx(manifest.inputs[1:], "ttft_ms", 1.0))


def infinite_graph() -> Draft:
    return draft("ttft", float("inf"))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (Draft(draft("ttft", 1.0).manifest, b"not a model"), "not an ONNX model"),
        (bad_graph(), "contradict the manifest"),
        (Draft(draft("ttft", 1.0).manifest, draft("tpot", 1.0).onnx), "contradict the manifest"),
        (infinite_graph(), "non-finite numbers"),
        (Draft(draft("ttft", 1.0).manifest, b"x" * (65 << 20)), "limit"),
    ],
)
def test_a_model_that_can_not_be_served_is_refused(wrong: Draft, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        open_draft(wrong)


def test_a_batch_and_single_rows_get_the_same_predictions() -> None:
    model = open_draft(draft("ttft", 2.0))
    columns = np.random.default_rng(1).random((len(model.signature.inputs), 50), dtype=np.float32)
    single = np.concatenate([model.predict(columns[:, i : i + 1])[0] for i in range(50)])
    np.testing.assert_allclose(model.predict(columns)[0], single, rtol=1e-6)


def test_the_process_needs_no_training_library() -> None:
    code = (
        "import sys, predictor.server, predictor.__main__\n"
        "print([m for m in ('xgboost','sklearn','onnx','pandas','grpc','aiohttp','scipy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "x"], "--port"),
        (["--model-sync-interval-sec", "0"], "--model-sync-interval-sec"),
        (["--model-store", "ftp://x"], "only folders"),
        (["--model-control-mode", "push"], "--model-control-mode"),
        (["--version-policy", "ttft=newest"], "latest:N, all or specific"),
        (["--version-policy", "latest:0"], "latest:N, all or specific"),
    ],
)
def test_a_bad_flag_ends_the_start_with_one_clear_line(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "predictor", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode != 0
    assert expected in result.stderr.splitlines()[-1]


def test_unused_variables_are_reported_with_the_reason(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--port", str(port), "--grpc-port", "0"]
    names = {"UVICORN_WORKERS": "8", "LOCAL_TTFT_MODEL_PATH": "/x", "MODEL_STORE": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | names) as process:
        assert process.stderr
        lines = [next(process.stderr) for _ in range(3)]
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert any("UVICORN_WORKERS is set and not used: its name here is PREDICT_WORKERS" in line for line in lines)
    assert any("LOCAL_TTFT_MODEL_PATH is set and not used" in line for line in lines)


def test_a_taken_grpc_port_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--port", "0", "--grpc-port", str(taken)]
        command += ["--model-store", str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{taken} for gRPC" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


async def test_a_reload_serves_the_newest_generation_even_while_an_older_one_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = open_store(str(tmp_path)), Engine()
    store.publish(pair(1.0))
    repository = Repository(store, engine)
    await repository.start()
    store.publish(pair(2.0))
    begun, goes_on = threading.Event(), threading.Event()

    def load_slowly(*arguments: Any) -> dict[str, Served]:
        begun.set()
        assert goes_on.wait(PATIENCE_S)
        return load_published(*arguments)

    monkeypatch.setattr("predictor.repository.load_published", load_slowly)
    polling = asyncio.create_task(repository.run(0))
    await asyncio.to_thread(begun.wait)
    polling.cancel()
    newest = store.publish(pair(3.0))
    polls = repository.polls
    reloading = asyncio.create_task(repository.reload())
    while repository.polls == polls:
        await asyncio.sleep(0)
    goes_on.set()
    assert (await reloading).loaded
    assert engine.generation == newest
    await repository.close()


def test_with_a_verify_key_only_signed_generations_are_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    signing, verify, place = tmp_path / "signing.key", tmp_path / "verify.pem", tmp_path / "store"
    make_keys(signing, verify)
    store = open_store(str(place), Trust(str(signing)))
    store.publish(pair(1.0))
    # A plain Triton folder has no signature.
    (place / "plain" / "1").mkdir(parents=True)
    (place / "plain" / "1" / "model.onnx").write_bytes(pair(1.0)[0].onnx)
    with running_predictor(place, verify_key_file=str(verify)) as url:
        assert ttft(url) == SUM
        assert call(f"{url}/v1/plain", ROW)[0] == 404
        open_store(str(place)).publish(pair(9.0))
        refused = 'headroom_predictor_refusals_total{reason="signature"}'
        until(lambda: float(call(f"{url}/metrics")[1].split(refused)[1].split()[0]) > 2)
        assert "current.json is not signed" in call(f"{url}/status")[1]["last_error"]
        assert caplog.text.count("is not signed") == 1
        assert ttft(url) == SUM
        store.publish(pair(2.0))
        until(lambda: ttft(url) == 2 * SUM)


@pytest.mark.parametrize(
    ("bomb", "kind", "reason"),
    [
        (bombs.doubled_columns, "trial", "MiB of memory"),
        (bombs.huge_constant, "graph", "ConstantOfShape"),
        (bombs.endless_loop, "graph", "Loop"),
        (bombs.deep, "graph", "nodes"),
    ],
)
def test_a_harmful_model_leaves_the_old_one_in_service(
    tmp_path: Path, bomb: Callable[[], bytes], kind: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path, try_models=True) as url:
        assert ttft(url) == SUM
        store.publish([draft("ttft", 1.0, onnx_bytes=bomb())])
        until(lambda: reason in (call(f"{url}/status")[1]["last_error"] or ""))
        assert ttft(url) == SUM
        assert f'headroom_predictor_refusals_total{{reason="{kind}"}} 0.0' not in call(f"{url}/metrics")[1]
        assert caplog.text.count("can't load ttft; the loaded models keep serving") == 1
        store.publish(pair(2.0))
        until(lambda: ttft(url) == 2 * SUM)


def test_a_poll_of_a_bucket_is_one_request(bucket: BucketPlace, s3: S3Server) -> None:
    asked: list[tuple[str, str]] = []

    def note(method: str, path: str) -> None:
        asked.append((method, path))

    open_store(bucket.location).publish(pair(1.0))
    with running_predictor(bucket.location, interval_s=3600) as url:
        assert call(f"{url}/readyz")[0] == 200
        s3.before = note
        for polls in range(1, 4):
            call(f"{url}/reload", b"")
            assert [method for method, _ in asked] == ["HEAD"] * polls
        s3.remove_hooks()
        open_store(bucket.location).publish(pair(2.0))
        assert call(f"{url}/reload", b"")[1]["loaded"]
        assert ttft(url) == 2 * SUM


def test_help_names_the_variables() -> None:
    command = [sys.executable, "-m", "predictor", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    assert all(
        name in text for name in ("MODEL_SYNC_INTERVAL_SEC", "PREDICT_PORT", "MODEL_STORE", "MODEL_CONTROL_MODE")
    )
