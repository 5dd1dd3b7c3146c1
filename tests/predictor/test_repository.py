import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from model_store import Draft, open_store
from predictor.exceptions import ModelError
from tests.live import call, until
from tests.predictor.models import draft, linear_onnx, opened, pair, running_predictor
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


def test_a_damaged_generation_leaves_the_old_one_serving_and_says_why(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with running_predictor(tmp_path) as url:
        # The pointer moves only after the file is bent, so that no poll can come in between.
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
        (infinite_graph(), "no finite numbers"),
        (Draft(draft("ttft", 1.0).manifest, b"x" * (65 << 20)), "limit"),
    ],
)
def test_a_model_that_can_not_be_served_is_refused(wrong: Draft, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        opened(wrong)


def test_the_engine_answers_batches_as_it_answers_rows() -> None:
    model = opened(draft("ttft", 2.0))
    columns = np.random.default_rng(1).random((len(model.signature.inputs), 50), dtype=np.float32)
    single = np.concatenate([model.predict(columns[:, i : i + 1])[0] for i in range(50)])
    np.testing.assert_allclose(model.predict(columns)[0], single, rtol=1e-6)


def test_the_process_needs_no_training_library() -> None:
    code = (
        "import sys, predictor.server, predictor.__main__\n"
        "print([m for m in ('xgboost','sklearn','onnx','pandas','grpc','aiohttp','scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
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
def test_a_bad_start_ends_with_one_clear_line(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "predictor", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0
    assert expected in result.stderr.splitlines()[-1]


def test_help_names_the_variables() -> None:
    command = [sys.executable, "-m", "predictor", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    assert all(
        name in text for name in ("MODEL_SYNC_INTERVAL_SEC", "PREDICT_PORT", "MODEL_STORE", "MODEL_CONTROL_MODE")
    )
