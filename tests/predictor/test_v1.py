import contextlib
import http.client
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store import SCHEMAS, Draft, open_store
from tests.live import PATIENCE_S, call
from tests.predictor.models import pair, running_predictor
from tests.trainer.rows import target
from trainer.fitter import Fitter
from trainer.job import Job
from trainer.settings import FitSettings, JobSettings

ROW = {
    "kv_cache_percentage": 0.5,
    "input_token_length": 100,
    "num_request_waiting": 2,
    "num_request_running": 3,
    "prefix_cache_score": 0.25,
}
SUM = 105.75


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    open_store(str(folder)).publish(pair(2.0))
    with running_predictor(folder) as running:
        yield running


def test_one_row_is_answered_with_its_generation(url: str) -> None:
    status, answer = call(f"{url}/v1/ttft", ROW)
    assert status == 200
    assert answer["ttft_ms"] == 2 * SUM
    assert (answer["model"], answer["quantile"], answer["generation"], answer["model_version"]) == ("ttft", 0.9, 1, 1)
    assert answer["generation_age_s"] >= 0


def test_rows_and_columns_and_constants_agree(url: str) -> None:
    rows = [{**ROW, "input_token_length": tokens} for tokens in (10, 20, 30)]
    columns = {**ROW, "input_token_length": [10, 20, 30]}
    expected = [2 * (SUM - 100 + tokens) for tokens in (10, 20, 30)]
    assert call(f"{url}/v1/ttft", {"rows": rows})[1]["ttft_ms"] == expected
    assert call(f"{url}/v1/ttft", {"columns": columns})[1]["ttft_ms"] == expected


def test_an_optional_feature_takes_its_default_or_is_missing(url: str) -> None:
    given_all = {**ROW, "prefill_tokens_in_flight": 7, "recent_tpot_ms": 3}
    assert call(f"{url}/v1/ttft", given_all)[1]["ttft_ms"] == 2 * (SUM + 10)
    assert call(f"{url}/v1/ttft", {**ROW, "recent_tpot_ms": None})[1]["ttft_ms"] == 2 * SUM


def test_the_description_has_a_curl_command(url: str) -> None:
    status, described = call(f"{url}/v1/tpot")
    assert status == 200
    assert [feature["name"] for feature in described["features"]] == [f.name for f in SCHEMAS["tpot"]]
    command = shlex.split(described["curl"])
    assert command[:2] == ["curl", "-s"]
    assert call(command[2], command[4].encode())[0] == 200


def test_the_models_are_listed(url: str) -> None:
    assert call(f"{url}/v1")[1]["models"] == ["tpot", "ttft"]


BAD: list[tuple[Any, str]] = [
    (b"{", "JSON"),
    (b"\xff", "JSON"),
    (b"[" * 100_000, "nested"),
    ([], "object"),
    ({**ROW, "colour": 1}, "colour: unknown"),
    ({k: v for k, v in ROW.items() if k != "num_request_waiting"}, "num_request_waiting: missing"),
    ({**ROW, "input_token_length": "many"}, "input_token_length: expected a number"),
    ({**ROW, "input_token_length": True}, "input_token_length: expected a number"),
    ({**ROW, "input_token_length": None}, "input_token_length: expected a number"),
    ({**ROW, "input_token_length": -1}, "input_token_length: expected at least 0"),
    ({**ROW, "input_token_length": 10**400}, "input_token_length"),
    ({**ROW, "input_token_length": 1e39}, "input_token_length"),
    ({**ROW, "kv_cache_percentage": 1.5}, "kv_cache_percentage: expected 0 to 1"),
    (json.dumps({**ROW, "kv_cache_percentage": float("nan")}).encode(), "JSON"),
    ({"rows": []}, "rows: expected 1 to 1000"),
    ({"rows": [ROW] * 1001}, "rows: expected 1 to 1000"),
    ({"rows": [ROW, {}]}, "missing in row 1"),
    ({"rows": 3}, "rows: expected an array"),
    ({"rows": [ROW], "more": 1}, "more: not expected"),
    ({"columns": []}, "columns: expected an object"),
    ({"columns": {**ROW, "input_token_length": [1, 2], "num_request_running": [1]}}, "different lengths"),
    ({"columns": {**ROW, "input_token_length": []}}, "columns: expected 1 to 1000"),
]


@pytest.mark.parametrize(("body", "expected"), BAD)
def test_an_input_error_names_its_field(url: str, body: Any, expected: str) -> None:
    status, answer = call(f"{url}/v1/ttft", body)
    assert status == 400
    assert expected in answer["error"]


def test_a_body_over_the_limit_is_refused(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/ttft")
        connection.putheader("content-length", str(1 << 30))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert b"larger than" in response.read()


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(url: str) -> None:
    """The client would send 100 MB; the server reads little more than the limit."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(1 << 20)

    with contextlib.closing(connection):
        with contextlib.suppress(ConnectionError):
            connection.request("POST", "/v1/ttft", chunks(), encode_chunked=True)
        assert sent < 100 or connection.getresponse().status == 413


def test_an_unknown_model_is_refused_with_the_loaded_ones(url: str) -> None:
    assert call(f"{url}/v1/colour", ROW) == (404, {"error": "no model 'colour'; loaded: tpot, ttft"})


def test_an_empty_store_is_not_ready(tmp_path: Path) -> None:
    with running_predictor(tmp_path) as url:
        assert call(f"{url}/v1/ttft", ROW)[0] == 503
        assert call(f"{url}/readyz")[0] == 503
        assert call(f"{url}/healthz")[0] == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "rows", "columns"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_json_is_answered_or_refused(url: str, body: Any) -> None:
    status, answer = call(f"{url}/v1/ttft", json.dumps(body).encode())
    assert status in (200, 400)
    assert "error" in answer or "ttft_ms" in answer


def test_all_quantiles_of_a_trained_model_are_answered_by_name(tmp_path: Path) -> None:
    fitted = JobSettings(FitSettings(quantiles=(0.9, 0.5), trees=10), trainer_id="t")
    (fitted_model,) = Fitter().learn(Job({"ttft": target(count=500)}, fitted))
    open_store(str(tmp_path)).publish([Draft(fitted_model.manifest, fitted_model.onnx)])
    with running_predictor(tmp_path) as url:
        answer = call(f"{url}/v1/ttft", ROW)[1]
    assert answer["quantile"] == 0.9
    assert answer["quantiles"] == {"ttft_ms": 0.9, "ttft_p50_ms": 0.5}
    assert 0 < answer["ttft_p50_ms"] <= answer["ttft_ms"]
