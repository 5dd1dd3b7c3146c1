import json
import os
import random
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_store import ROW_NAMES, open_store
from tests.live import PATIENCE_S, call, live, until
from tests.trainer.process import started
from trainer.app import create_app
from trainer.config import Config
from trainer.graph import Graph


@contextmanager
def running_trainer(
    store: Path | str,
    min_samples: int = 100,
    journal: str = "",
    model_type: str = "xgboost",
    signing_key_file: str = "",
) -> Iterator[str]:
    config = Config(
        host="127.0.0.1",
        port=0,
        model_store=str(store),
        signing_key_file=signing_key_file,
        keep_generations=3,
        sample_journal=journal,
        retraining_interval_sec=0.05,
        min_samples_for_retrain=min_samples,
        min_samples_for_retrain_fresh=None,
        model_type=model_type,
        objective_type="quantile",
        quantile_alpha=0.5,
        extra_quantiles=(0.9,),
        max_training_data_size_per_bucket=5000,
        test_train_ratio=0.1,
        max_test_data_size=1000,
        sample_weighting_for_prefix_cache=False,
        trees=60,
        depth=5,
        learning_rate=0.2,
        threads=1,
        gate_tolerance=0.1,
        drift_tolerance=0.2,
        canary_rows=100,
        allowed_outliers=1.0,
        max_source_share=0.5,
        max_body_bytes=1 << 20,
        log_level="info",
    )
    with live(create_app(config)) as url:
        yield url


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with running_trainer(tmp_path) as running:
        yield running


def entry(rng: random.Random, **fields: object) -> dict[str, object]:
    tokens = rng.randint(1, 2000)
    return {
        "kv_cache_percentage": rng.random(),
        "input_token_length": tokens,
        "num_request_waiting": rng.randint(0, 12),
        "num_request_running": rng.randint(0, 30),
        "actual_ttft_ms": 50 + tokens * 0.2,
        "actual_tpot_ms": 20 + rng.random(),
        "num_tokens_generated": 1,
        "prefix_cache_score": rng.random(),
        **fields,
    }


def entries(count: int, seed: int = 0) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [entry(rng) for _ in range(count)]


def sample_count(url: str) -> int:
    """Return the number of TTFT samples that a trainer holds, for training and sample_count out."""
    status = call(f"{url}/data/status")[1]
    return int(status["training_data"]["ttft_samples"] + status["test_data"]["ttft_samples"])


def test_samples_become_a_generation_that_predicts_them(url: str, tmp_path: Path) -> None:
    assert call(f"{url}/readyz")[0] == 503
    status, answer = call(f"{url}/add_training_data_bulk", {"entries": entries(1500)})
    assert (status, answer) == (202, {"message": "Accepted 1500 training samples."})
    until(lambda: call(f"{url}/readyz")[0] == 200)
    store = open_store(str(tmp_path))
    generation = store.current()
    assert generation
    assert set(generation.models) == {"ttft", "tpot"}
    row = dict.fromkeys(ROW_NAMES, 0.5) | {"input_token_length": 1000.0, "recent_tpot_ms": float("nan")}
    matrix = np.array([[row[name] for name in ROW_NAMES]], dtype=np.float32)
    assert Graph(store.read(generation, "ttft").onnx).predict(ROW_NAMES, matrix)[0] == pytest.approx(250, rel=0.25)


def test_the_history_tells_what_each_pass_published_and_what_its_models_look_at(url: str, tmp_path: Path) -> None:
    assert call(f"{url}/data/history") == (200, {"generation": None, "passes": []})
    call(f"{url}/add_training_data_bulk", {"entries": entries(1500)})
    until(lambda: call(f"{url}/readyz")[0] == 200)
    status, told = call(f"{url}/data/history")
    assert (status, told["generation"]) == (200, 1)
    published = told["passes"][-1]
    assert (published["outcome"], published["generation"]) == ("published", 1)
    ttft = published["models"]["ttft"]
    assert 0 < ttft["scores"]["coverage"] <= 1
    # The latencies follow the prompt's length, and nothing else.
    assert max(ttft["effects"], key=ttft["effects"].__getitem__) == "input_token_length"
    assert ttft["effects"]["pod_type"] == 0
    generation = open_store(str(tmp_path)).current()
    assert generation
    graph = onnx.load_from_string(open_store(str(tmp_path)).read(generation, "ttft").onnx)
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    assert json.loads(metadata["feature_effects"]) == ttft["effects"]


def test_the_trainer_trains_only_after_new_samples(url: str) -> None:
    call(f"{url}/add_training_data_bulk", {"entries": entries(300)})
    until(lambda: call(f"{url}/data/status")[1]["generation"] == 1)
    first = call(f"{url}/data/status")[1]["last_retrain"]
    passes = 'headroom_trainer_passes_total{outcome="published"} 1.0'
    assert passes in call(f"{url}/metrics")[1]
    call(f"{url}/add_training_data_bulk", {"entries": entries(10, seed=1)})
    until(lambda: call(f"{url}/data/status")[1]["last_retrain"] != first)


def test_nothing_is_published_before_there_are_enough_samples(url: str, tmp_path: Path) -> None:
    call(f"{url}/add_training_data_bulk", {"entries": entries(20)})
    until(lambda: call(f"{url}/data/status")[1]["last_pass"] is not None)
    last = call(f"{url}/data/status")[1]["last_pass"]
    assert last["outcome"] == "too_few_samples"
    assert open_store(str(tmp_path)).current() is None


def test_a_restarted_trainer_loads_the_generation_in_force(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as url:
        call(f"{url}/add_training_data_bulk", {"entries": entries(300)})
        until(lambda: call(f"{url}/readyz")[0] == 200)
    with running_trainer(tmp_path) as url:
        until(lambda: call(f"{url}/readyz")[0] == 200)
        assert call(f"{url}/data/status")[1]["generation"] >= 1


def test_a_second_trainer_takes_over_when_the_first_ends(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as second:
        with running_trainer(tmp_path) as first:
            call(f"{first}/add_training_data_bulk", {"entries": entries(300)})
            until(lambda: call(f"{first}/readyz")[0] == 200)
            call(f"{second}/add_training_data_bulk", {"entries": entries(300, seed=1)})
            until(lambda: call(f"{second}/data/status")[1]["last_pass"] is not None)
            waiting = call(f"{second}/data/status")[1]["last_pass"]
            assert waiting["outcome"] == "standby"
            assert "another trainer publishes" in waiting["reason"]
            published = call(f"{first}/data/status")[1]["generation"]
        until(lambda: (call(f"{second}/data/status")[1]["generation"] or 0) > published)


def test_optional_fields_of_newer_clients_are_accepted(url: str) -> None:
    rng = random.Random(1)
    newer = entry(
        rng, prefill_tokens_in_flight=5, recent_tpot_ms=None, pod_type="decode", timestamp="2026-01-01T00:00:00Z"
    )
    assert call(f"{url}/add_training_data_bulk", {"entries": [newer]})[0] == 202
    assert call(f"{url}/add_training_data_bulk", {"entries": []})[1]["message"] == "Accepted 0 training samples."


def test_samples_are_accepted_as_messagepack(url: str) -> None:
    def post(body: bytes) -> int:
        headers = {"content-type": "application/msgpack"}
        request = urllib.request.Request(f"{url}/add_training_data_bulk", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert post(msgspec.msgpack.encode({"entries": entries(30)})) == 202
    assert sample_count(url) == 30
    assert post(msgspec.msgpack.encode({"entries": [{"kv_cache_percentage": 2}]})) == 422
    assert post(b"\xc1") == 422


def bad(**fields: object) -> dict[str, object]:
    return {"entries": [entry(random.Random(1)), entry(random.Random(1), **fields)]}


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (bad(kv_cache_percentage=1.1), "kv_cache_percentage"),
        (bad(input_token_length=-1), "input_token_length"),
        (bad(actual_ttft_ms="fast"), "actual_ttft_ms"),
        ({"entries": [{"kv_cache_percentage": 0.5}]}, "input_token_length"),
        ({"rows": []}, "entries"),
        (b"{", "body"),
        (b"\xff\xff", "body"),
    ],
)
def test_a_bad_batch_is_refused_whole_and_the_error_names_the_field(url: str, body: Any, location: str) -> None:
    status, answer = call(f"{url}/add_training_data_bulk", body)
    assert status == 422
    assert location in answer["detail"][0]["loc"]
    assert call(f"{url}/data/status")[1]["training_data"]["total_samples"] == 0


def test_impossible_rows_are_quarantined_and_can_be_looked_at(url: str) -> None:
    impossible = entry(random.Random(1), actual_ttft_ms=1e12)
    assert call(f"{url}/add_training_data_bulk", {"entries": [*entries(300), impossible]})[0] == 202
    assert sample_count(url) == 300
    assert call(f"{url}/data/status")[1]["quarantined"] == {"impossible": 1}
    found = call(f"{url}/data/quarantine")[1]
    assert found["newest_quarantined"][0]["actual_ttft_ms"] == pytest.approx(1e12)
    page = call(f"{url}/metrics")[1]
    assert 'headroom_trainer_quarantined_rows_total{reason="impossible"} 1.0' in page
    assert 'headroom_trainer_quarantined_rows_total{reason="source"} 0.0' in page


def test_a_fit_tells_which_rows_it_did_not_believe(url: str) -> None:
    wrong = [made | {"actual_ttft_ms": 3e6} for made in entries(100, seed=9)]
    call(f"{url}/add_training_data_bulk", {"entries": [*entries(400), *wrong]})
    until(lambda: call(f"{url}/readyz")[0] == 200)
    models = call(f"{url}/data/status")[1]["last_pass"]["models"]
    assert 60 < models["ttft"]["doubted_rows"] < 130
    assert all(row["latency_ms"] == 3e6 for row in call(f"{url}/data/quarantine")[1]["newest_doubted"]["ttft"])
    assert "headroom_trainer_doubted_rows" in call(f"{url}/metrics")[1]


def test_a_flush_counts_what_it_removed(url: str) -> None:
    call(f"{url}/add_training_data_bulk", {"entries": entries(50)})
    status, answer = call(f"{url}/flush", b"")
    assert status == 200
    assert answer["message"].startswith("Successfully flushed: ")
    assert answer["ttft_training_samples_flushed"] + answer["ttft_test_samples_flushed"] == 50
    assert call(f"{url}/data/status")[1]["training_data"]["total_samples"] == 0
    nothing = dict.fromkeys(("flush_training_data", "flush_test_data", "flush_metrics"), False)
    assert call(f"{url}/flush", nothing)[1]["message"] == "No data flushed"
    assert call(f"{url}/flush", b"{")[0] == 422


@pytest.mark.parametrize("path", ["/flush", "/predict", "/add_training_data_bulk"])
def test_a_body_above_the_limit_is_refused(url: str, path: str) -> None:
    assert call(f"{url}{path}", b" " * (1 << 20) + b"{}")[0] == 413


@pytest.mark.parametrize("path", ["/flush", "/predict", "/add_training_data_bulk"])
def test_an_aborted_body_leaves_no_traceback(capfd: pytest.CaptureFixture[str], url: str, path: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as aborting:
        aborting.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{" % path.encode())
        # The server reads the part of the body before it answers this.
        assert call(f"{url}/healthz")[0] == 200
    for _ in range(5):
        assert call(f"{url}/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_health_checks_are_answered_while_a_fit_runs(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as url:
        for seed in range(4):
            call(f"{url}/add_training_data_bulk", {"entries": entries(1000, seed)})
        answered = 0
        while call(f"{url}/readyz")[0] != 200:
            assert call(f"{url}/healthz") == (200, {"status": "ok"})
            answered += 1
        assert answered > 0


def test_the_metrics_page_has_the_training_servers_names(url: str) -> None:
    call(f"{url}/add_training_data_bulk", {"entries": entries(200)})
    until(lambda: call(f"{url}/readyz")[0] == 200)
    page = call(f"{url}/metrics")[1]
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for name in CONTRACT:
        assert families[name].documentation, name
        assert families[name].type == "gauge"
        assert families[name].samples, name
    assert 'model_type{type="xgboost"} 1.0' in page
    for family in families.values():
        assert family.documentation
        assert family.type != "unknown"


# The metrics that dashboards of llm-d's training server use.
CONTRACT = [
    "model_type",
    "model_quantile",
    "training_samples_count",
    "training_samples_queue_total",
    "training_samples_cache_total",
    "training_samples_prefix_total",
    *(f"prefix_score_{part}" for part in ("mean", "std", "min", "max")),
    "avg_ttft_by_prefix",
    "median_ttft_by_prefix",
    "target_coverage_percent",
    "target_violation_rate_percent",
    *(
        f"{model}_{part}"
        for model in ("ttft", "tpot")
        for part in ("importance", "quantile_loss", "coverage_percent", "violation_rate_percent")
    ),
    *(
        f"headroom_trainer_{part}"
        for part in ("holdout", "holdout_samples", "drift_score", "ingestion_lag_seconds", "generation", "trees")
    ),
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--quantile-alpha", "1"], "--quantile-alpha"),
        (["--model-type", "oracle"], "--model-type"),
        (["--retraining-interval-sec", "0"], "--retraining-interval-sec"),
        (["--model-store", "ftp://x"], "only folders"),
        (["--extra-quantiles", "0.5,2"], "--extra-quantiles"),
        (["--test-train-ratio", "1.5"], "--test-train-ratio"),
        (["--max-training-data-size-per-bucket", "0"], "--max-training-data-size-per-bucket"),
        (["--objective-type", "mode"], "--objective-type"),
    ],
)
def test_a_bad_flag_ends_the_start_with_one_clear_line(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "trainer", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode != 0
    assert expected in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("retrainingIntervalSec", "-1"),
        ("minSamplesForRetrain", "none"),
        ("modelType", "oracle"),
        ("LATENCY_QUANTILE_ALPHA", "90"),
        ("LATENCY_EXTRA_QUANTILES", "p50"),
        ("LATENCY_SAMPLE_WEIGHTING_FOR_PREFIX_CACHE", "perhaps"),
        ("LATENCY_MIN_SAMPLES_FOR_RETRAIN_FRESH", "0"),
    ],
)
def test_a_bad_environment_variable_is_named_and_refused(variable: str, value: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trainer", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=os.environ | {variable: value},
    )
    assert result.returncode == 2
    assert variable in result.stderr
    assert "Traceback" not in result.stderr


def test_the_charts_variables_are_read_and_those_of_other_servers_reported(tmp_path: Path) -> None:
    chart = {"retrainingIntervalSec": "0.05", "minSamplesForRetrain": "60", "modelType": "lightgbm"}
    with started(tmp_path, environment=chart | {"LATENCY_TTFT_MODEL_PATH": "/tmp/x.joblib"}) as trainer:  # noqa: S108
        assert "LATENCY_TTFT_MODEL_PATH is set and not used: models are published in the store" in trainer.log
        assert "retraining_interval_sec=0.05, min_samples_for_retrain=60" in trainer.log
        assert "model_type='lightgbm'" in trainer.log


def test_help_names_the_variables() -> None:
    command = [sys.executable, "-m", "trainer", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    assert all(name in text for name in ("LATENCY_RETRAINING_INTERVAL_SEC", "LATENCY_MODEL_TYPE", "MODEL_STORE"))
