"""A store that `headroom seed` filled predicts the first request, and a trainer replaces its models."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from headroom.__main__ import main
from model_store import open_store
from tests.live import call, until
from tests.predictor.models import running_predictor
from tests.predictor.test_v1 import ROW
from tests.trainer.test_trainer_app import entries, running_trainer


def seed(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["seed", *arguments])
    return ended.exit_code, ended.output


@pytest.mark.slow
def test_a_seeded_store_predicts_at_once_until_a_trainer_replaces_the_models(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    code, output = seed("fast", "fast", "--model-store", store, "--requests", "900")
    assert code == 0, output
    assert f"published generation 1 in {store}, from 900 simulated requests" in output
    current = open_store(store).current()
    assert current is not None
    assert set(current.models) == {"ttft", "tpot"}
    with running_trainer(Path(store)) as trainer, running_predictor(store) as predictor:
        status, predicted = call(f"{predictor}/v1/ttft", ROW)
        assert status == 200
        assert predicted["ttft_ms"] > 0
        assert call(f"{trainer}/add_training_data_bulk", {"entries": entries(400)})[0] == 202
        until(lambda: (call(f"{predictor}/status")[1]["generation"] or 0) > 1)
    code, output = seed("fast", "--model-store", store, "--requests", "600")
    assert code == 1
    assert "already, perhaps of real traffic: use --replace" in output


def test_an_unknown_server_is_refused_by_its_name(tmp_path: Path) -> None:
    code, output = seed("absent.csv", "--model-store", str(tmp_path))
    assert code == 2
    assert "absent.csv" in output
