from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store import open_store
from tests.live import call
from tests.predictor.models import pair, running_predictor

ROW = {
    "kv_cache_percentage": 0.5,
    "input_token_length": 100,
    "num_request_waiting": 2,
    "num_request_running": 3,
    "num_tokens_generated": 4,
    "prefix_cache_score": 0.25,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    open_store(str(folder)).publish(pair(1.0))
    with running_predictor(folder) as running:
        yield running


@pytest.mark.parametrize(("role", "code"), [("", 0), (None, 0), ("unheard of", 0), ("prefill", 1), ("decode", 2)])
def test_a_role_is_a_code_and_an_unknown_one_is_missing(url: str, role: str | None, code: int) -> None:
    assert call(f"{url}/predict", {**ROW, "pod_type": role})[1]["ttft_ms"] == 105.75 + code


def test_a_prediction_has_both_latencies_and_says_whose_they_are(url: str) -> None:
    status, answer = call(f"{url}/predict", {**ROW, "colour": "red"})
    assert status == 200
    assert (answer["ttft_ms"], answer["tpot_ms"]) == (105.75, 109.5)
    assert (answer["model_type"], answer["objective_type"], answer["quantile"]) == ("xgboost", "quantile", 0.9)
    assert {"predicted_at", "last_model_load"} <= answer.keys()


@pytest.mark.parametrize("path", ["/predict/bulk", "/predict/bulk/strict"])
def test_a_batch_is_answered_in_order(url: str, path: str) -> None:
    rows = [{**ROW, "input_token_length": tokens, "recent_tpot_ms": None} for tokens in (1, 2, 3)]
    status, answer = call(url + path, {"requests": rows})
    assert status == 200
    assert [p["ttft_ms"] for p in answer["predictions"]] == [6.75, 7.75, 8.75]
    assert (answer["total_requests"], answer["successful_predictions"], answer["failed_predictions"]) == (3, 3, 0)
    assert answer["generation"] == 1
    assert ("errors" in answer) == (path == "/predict/bulk")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"requests": [{**ROW, "kv_cache_percentage": 2}]}, "kv_cache_percentage"),
        ({"requests": [ROW, {k: v for k, v in ROW.items() if k != "prefix_cache_score"}]}, "prefix_cache_score"),
        ({"requests": [{**ROW, "input_token_length": -1}]}, "input_token_length"),
        ({"requests": [{**ROW, "input_token_length": 10**400}]}, "input_token_length"),
        ({"requests": [{**ROW, "input_token_length": 2**60}]}, "input_token_length"),
        ({"requests": [{**ROW, "recent_tpot_ms": 1e300}]}, "recent_tpot_ms"),
        ({"requests": [{**ROW, "num_request_running": 1.5}]}, "num_request_running"),
        ({"requests": [{**ROW, "pod_type": 1}]}, "pod_type"),
        ({"requests": []}, "requests"),
        ({"requests": [ROW] * 1001}, "requests"),
        ({}, "requests"),
        (b"{", "body"),
    ],
)
def test_a_bad_batch_is_refused_whole_and_the_field_named(url: str, body: Any, location: str) -> None:
    status, answer = call(f"{url}/predict/bulk/strict", body)
    assert status == 422
    assert location in answer["detail"][0]["loc"]


def test_status_and_readiness_name_the_generation(url: str) -> None:
    status = call(f"{url}/status")[1]
    assert (status["is_ready"], status["generation"], status["last_error"]) == (True, 1, None)
    assert status["models_exist"] == {"ttft_model": True, "tpot_model": True}
    assert call(f"{url}/readyz")[1]["status"] == "ready"
    assert call(f"{url}/")[1]["is_ready"]
    assert call(f"{url}/healthz")[1]["status"] == "ok"


def test_with_nothing_loaded_every_prediction_is_a_503(tmp_path: Path) -> None:
    with running_predictor(tmp_path) as url:
        for path, body in (("", ROW), ("/bulk", {"requests": [ROW]}), ("/bulk/strict", {"requests": [ROW]})):
            assert call(f"{url}/predict{path}", body) == (503, {"detail": "Models not ready"})
        assert call(f"{url}/status")[1]["is_ready"] is False


def test_reload_takes_over_what_polling_has_not_seen_yet(tmp_path: Path) -> None:
    with running_predictor(tmp_path, interval_s=3600) as url:
        open_store(str(tmp_path)).publish(pair(1.0))
        answer = call(f"{url}/reload", b"")[1]
        assert (answer["synced"], answer["loaded"], answer["is_ready"]) == (True, True, True)
        assert call(f"{url}/reload", b"")[1]["loaded"] is False


def test_the_metrics_have_tritons_names(url: str) -> None:
    call(f"{url}/predict/bulk/strict", {"requests": [ROW] * 5})
    page = call(f"{url}/metrics")[1]
    assert "# TYPE nv_inference_request_success counter" in page
    for name in ("request_success", "count", "exec_count", "request_duration_us", "queue_duration_us"):
        assert f'nv_inference_{name}{{model="ttft"}}' in page
    for stage in ("input", "infer", "output"):
        assert f'nv_inference_compute_{stage}_duration_us{{model="tpot"}}' in page
    assert 'headroom_predictor_request_duration_seconds_bucket{le="+Inf",model="ttft"}' in page
    assert 'headroom_predictor_loads_total{outcome="ok"} 1.0' in page
    assert {"process_resident_memory_bytes", "headroom_predictor_polls_total"} <= set(page.split())
    assert "headroom_predictor_generation 1.0" in page
