import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import SCHEMAS, open_store
from tests.live import PATIENCE_S, call
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
def test_a_role_becomes_its_code_and_an_unknown_role_is_missing(url: str, role: str | None, code: int) -> None:
    assert call(f"{url}/predict", {**ROW, "pod_type": role})[1]["ttft_ms"] == 105.75 + code


def test_a_prediction_has_both_latencies_and_describes_the_models(url: str) -> None:
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
def test_a_bad_batch_is_refused_whole_and_the_error_names_the_field(url: str, body: Any, location: str) -> None:
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


def test_without_models_every_prediction_is_a_503(tmp_path: Path) -> None:
    with running_predictor(tmp_path) as url:
        for path, body in (("", ROW), ("/bulk", {"requests": [ROW]}), ("/bulk/strict", {"requests": [ROW]})):
            assert call(f"{url}/predict{path}", body) == (503, {"detail": "Models not ready"})
        assert call(f"{url}/status")[1]["is_ready"] is False


def test_reload_loads_a_generation_without_waiting_for_a_poll(tmp_path: Path) -> None:
    with running_predictor(tmp_path, interval_s=3600) as url:
        open_store(str(tmp_path)).publish(pair(1.0))
        answer = call(f"{url}/reload", b"")[1]
        assert (answer["synced"], answer["loaded"], answer["is_ready"]) == (True, True, True)
        assert call(f"{url}/reload", b"")[1]["loaded"] is False


def test_metrics_have_tritons_names(url: str) -> None:
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


NAMES = [*ROW]
NUMBERS = np.array([[*ROW.values()], [0.25, 7, 0, 0, 0, 1]], dtype="<f4")


def columns(names: list[str], rows: Any) -> bytes:
    """Encode a body of /predict/columns."""
    return json.dumps({"features": names}).encode() + b"\n" + np.asarray(rows, dtype="<f4").T.tobytes()


def ask_columns(url: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"{url}/predict/columns", body)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_columns_and_rows_get_the_same_predictions(url: str) -> None:
    status, headers, answer = ask_columns(url, columns(NAMES, NUMBERS))
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    head, _, numbers = answer.partition(b"\n")
    assert json.loads(head) == {"generation": 1}
    rows = [dict(zip(NAMES, row, strict=True)) for row in NUMBERS.tolist()]
    whole = [{name: value if "cache" in name else int(value) for name, value in row.items()} for row in rows]
    predictions = call(f"{url}/predict/bulk/strict", {"requests": whole})[1]["predictions"]
    expected = [[row[name] for row in predictions] for name in ("ttft_ms", "tpot_ms")]
    assert np.frombuffer(numbers, "<f4").reshape(2, 2).tolist() == expected


def test_medians_are_answered_if_requested_and_predicted(url: str, tmp_path: Path) -> None:
    body = columns(NAMES, NUMBERS[:1]).replace(b"{", b'{"medians": true, ', 1)
    assert np.frombuffer(ask_columns(url, body)[2].partition(b"\n")[2], "<f4").tolist() == [105.75, 109.5]
    open_store(str(tmp_path)).publish(pair(1.0, has_median=True))
    with running_predictor(tmp_path) as with_medians:
        numbers = ask_columns(with_medians, body)[2].partition(b"\n")[2]
        plain = ask_columns(with_medians, columns(NAMES, NUMBERS[:1]))[2].partition(b"\n")[2]
    assert np.frombuffer(numbers, "<f4").tolist() == [105.75, 109.5, 52.875, 54.75]
    assert np.frombuffer(plain, "<f4").tolist() == [105.75, 109.5]


@pytest.mark.parametrize(("is_earlier", "ttft_ms"), [(True, 105.75), (False, 112.75)])
def test_models_of_an_earlier_schema_do_not_get_new_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_earlier: bool, ttft_ms: float
) -> None:
    if is_earlier:
        monkeypatch.setitem(SCHEMAS, "ttft", tuple(one for one in SCHEMAS["ttft"] if one.name != "ms_since_token"))
    open_store(str(tmp_path)).publish(pair(1.0))
    row = {**ROW, "ms_since_token": 7}
    with running_predictor(tmp_path) as url:
        assert call(f"{url}/predict", row)[1]["ttft_ms"] == ttft_ms
        answer = ask_columns(url, columns(list(row), [list(row.values())]))[2]
    assert np.frombuffer(answer.partition(b"\n")[2], "<f4").tolist() == [ttft_ms, 109.5]


def test_columns_may_be_in_any_order_and_hold_nan(url: str) -> None:
    names = ["recent_tpot_ms", *reversed(NAMES)]
    status, _, answer = ask_columns(url, columns(names, [[float("nan"), *reversed(ROW.values())]]))
    assert status == 200
    assert np.frombuffer(answer.partition(b"\n")[2], "<f4").tolist() == [105.75, 109.5]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "a line of JSON"),
        (b"x" * 5000, "a line of JSON"),
        (b"{}\n", "features"),
        (b'{"features":"x"}\n', "features"),
        (b"\xff\n", "first line"),
        (columns([*NAMES, "colour"], [[*ROW.values(), 1]]), "colour: no such feature"),
        (columns([*NAMES, NAMES[0]], [[*ROW.values(), 1]]), "twice"),
        (columns(NAMES[1:], [[*ROW.values()][1:]]), "kv_cache_percentage: missing"),
        (columns(NAMES, NUMBERS)[:-1], "not whole rows"),
        (columns(NAMES, NUMBERS[:0]), "expected 1 to"),
        (columns(NAMES, [[2.0, *[*ROW.values()][1:]]]), "kv_cache_percentage: expected a number from 0 to 1, got 2"),
        (columns(NAMES, [[0.5, float("nan"), 1, 1, 1, 0]]), "input_token_length"),
        (columns(NAMES, [[0.5, float("inf"), 1, 1, 1, 0]]), "input_token_length"),
    ],
)
def test_malformed_columns_are_refused(url: str, body: bytes, expected: str) -> None:
    status, _, answer = ask_columns(url, body)
    assert status == 400
    assert expected in json.loads(answer)["detail"]
