import io
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import PATIENCE_S, call, until
from tests.trainer.test_trainer_app import entries, running_trainer

ROW = {
    "kv_cache_percentage": 0.5,
    "input_token_length": 1000,
    "num_request_waiting": 1,
    "num_request_running": 2,
    "num_tokens_generated": 1,
    "prefix_cache_score": 0.5,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_trainer(tmp_path_factory.mktemp("store")) as running:
        call(f"{running}/add_training_data_bulk", {"entries": entries(800)})
        until(lambda: call(f"{running}/readyz")[0] == 200)
        yield running


@pytest.mark.parametrize("model_type", ["lightgbm", "bayesian_ridge"])
def test_other_model_types_are_fitted_published_and_shown(tmp_path: Path, model_type: str) -> None:
    with running_trainer(tmp_path, model_type=model_type) as running:
        call(f"{running}/add_training_data_bulk", {"entries": entries(800)})
        until(lambda: call(f"{running}/readyz")[0] == 200)
        answer = call(f"{running}/predict", ROW)[1]
        assert answer["ttft_ms"] == pytest.approx(250, rel=0.3)
        assert answer["model_type"] == model_type
        page = call(f"{running}/metrics")[1]
        assert f'model_type{{type="{model_type}"}} 1.0' in page
        endpoints = call(f"{running}/model/download/info")[1]["available_endpoints"]
        if model_type == "bayesian_ridge":
            assert endpoints == {"coefficients": "/metrics"}
            assert 'ttft_coef{feature="input_token_length"}' in page
            assert "ttft_intercept" in page
        else:
            text, headers = get(running + endpoints["lightgbm"]["ttft_model_txt"])
            assert text.startswith(b"tree\n")
            assert "ttft_lgb_model.txt" in headers["content-disposition"]
            importances = call(running + endpoints["lightgbm"]["ttft_importances"])[1]
            assert importances["input_token_length"] > 0
        assert call(f"{running}/model/ttft/xgb/json")[0] == 404


def get(url: str) -> tuple[bytes, Any]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310
        return response.read(), response.headers


def test_a_prediction_carries_bounds(url: str) -> None:
    status, answer = call(f"{url}/predict", ROW)
    assert status == 200
    assert answer["ttft_ms"] == pytest.approx(250, rel=0.3)
    low, high = answer["ttft_prediction_bounds"]
    assert low < answer["ttft_ms"] < high
    assert answer["model_type"] == "xgboost"


def test_a_bad_prediction_request_names_the_wrong_field(url: str) -> None:
    status, answer = call(f"{url}/predict", {**ROW, "prefix_cache_score": 2})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "prefix_cache_score"])


def test_models_are_listed_described_and_downloaded_as_onnx(url: str) -> None:
    listed = call(f"{url}/models/list")[1]["models"]
    assert {name: model["exists"] for name, model in listed.items()} == {
        "ttft": True,
        "tpot": True,
        "ttft_gated": False,
        "tpot_gated": False,
    }
    described = call(f"{url}/model/ttft/info")[1]
    model, headers = get(f"{url}/model/ttft/download")
    assert described["size_bytes"] == len(model)
    assert headers["content-type"] == "application/octet-stream"
    assert call(f"{url}/model/ttft_gated/info")[0] == 404
    assert call(f"{url}/model/colour/download")[0] == 404


def test_the_trees_are_a_list_of_json_objects(url: str) -> None:
    status, trees = call(f"{url}/model/tpot/xgb/json")
    assert status == 200
    assert all("nodeid" in tree for tree in trees)
    assert call(f"{url}/model/tpot/lgb/txt")[0] == 404


def test_the_export_is_an_archive_without_pickles(url: str) -> None:
    data, headers = get(f"{url}/model/export")
    assert headers["content-type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = set(archive.getnames())
        assert all(member.mtime > 0 for member in archive)
    assert names == {"metadata.json", "ttft.onnx", "tpot.onnx", "ttft.manifest.json", "tpot.manifest.json"}


def test_download_info_lists_the_available_endpoints(url: str) -> None:
    info = call(f"{url}/model/download/info")[1]
    assert info["available_endpoints"]["trees"]["ttft_trees"] == "/model/ttft/xgb/json"
    assert info["model_status"] == {"ttft_model_ready": True, "tpot_model_ready": True}


def test_the_prefix_distribution_counts_every_sample(url: str) -> None:
    found = call(f"{url}/debug/prefix_distribution")[1]
    ranges = found["distribution_by_prefix_range"].values()
    assert sum(entry["count"] for entry in ranges) == found["overall_stats"]["total_samples"] > 500


def test_importances_are_on_the_metrics_page(url: str) -> None:
    page = call(f"{url}/metrics")[1]
    assert 'ttft_importance{feature="prefix_cache_score"}' in page
    assert 'tpot_importance{feature="num_tokens_generated"}' in page


def test_without_a_model_the_endpoints_say_so(tmp_path: Path) -> None:
    with running_trainer(tmp_path) as url:
        assert call(f"{url}/predict", ROW) == (503, {"detail": "Models not ready"})
        assert call(f"{url}/model/export")[0] == 503
        assert call(f"{url}/model/ttft/xgb/json")[0] == 404
        assert call(f"{url}/models/list")[1]["models"]["ttft"]["exists"] is False
        assert call(f"{url}/debug/prefix_distribution")[1] == {"error": "No training samples available"}
