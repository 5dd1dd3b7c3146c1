import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from model_store import Trust, open_store
from model_store.signing import make_keys
from scripts.export_model import main
from tests.live import PATIENCE_S
from trainer.graph import Graph

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_model.py"
NAMES = ["size", "colour", "kv_cache_percentage"]


def data(rows: int = 2000) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    x = rng.random((rows, 3), dtype=np.float32)
    y = (100 * x[:, 0] + 50 * (x[:, 1] > 0.5) + rng.random(rows)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, y


def train(path: Path, names: list[str] | None = None, **parameters: object) -> xgb.Booster:
    matrix = xgb.DMatrix(*data(), feature_names=names)
    booster = xgb.train({"max_depth": 5, "nthread": 1, **parameters}, matrix, 30)
    booster.save_model(path)
    return booster


def export(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def refused(*arguments: object) -> Result:
    """Run the command in this process, because it ends before the model is converted."""
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def published(store: Path, name: str) -> Graph:
    opened = open_store(str(store))
    generation = opened.current()
    assert generation
    return Graph(opened.read(generation, name).onnx)


@pytest.mark.parametrize("file", ["model.json", "model.ubj"])
@pytest.mark.parametrize("objective", [{}, {"objective": "reg:quantileerror", "quantile_alpha": 0.9}])
def test_a_model_trained_elsewhere_is_published_with_equal_predictions(
    tmp_path: Path, file: str, objective: dict[str, object]
) -> None:
    booster = train(tmp_path / file, None, **objective)
    result = export(tmp_path / file, "--features", ",".join(NAMES), "--store", tmp_path / "store", "--name", "foreign")
    assert result.returncode == 0, result.stderr
    assert "published   generation 1" in result.stdout
    assert "difference  at most" in result.stdout
    x, _ = data(500)
    np.testing.assert_allclose(
        published(tmp_path / "store", "foreign").predict(NAMES, x), booster.inplace_predict(x), rtol=1e-4
    )


def test_the_scikit_learn_interface_and_saved_names_work(tmp_path: Path) -> None:
    train(tmp_path / "named.json", names=NAMES)
    rows = tmp_path / "rows.csv"
    rows.write_text("kv_cache_percentage,size,colour\n0.5,1,2\n,3,4\n")
    result = export(tmp_path / "named.json", "--store", tmp_path / "store", "--rows", rows)
    assert result.returncode == 0, result.stderr
    assert "compared    2 rows" in result.stdout


def test_a_second_export_keeps_the_models_of_the_first_and_signs_both(tmp_path: Path) -> None:
    train(tmp_path / "m.json", names=NAMES)
    make_keys(tmp_path / "signing.key", tmp_path / "verify.pem")
    key = ("--signing-key-file", tmp_path / "signing.key")
    for name in ("ttft", "tpot"):
        assert export(tmp_path / "m.json", "--store", tmp_path / "store", "--name", name, *key).returncode == 0
    trust = Trust(verify_key_file=str(tmp_path / "verify.pem"))
    generation = open_store(str(tmp_path / "store"), trust).current()
    assert generation
    assert set(generation.models) == {"ttft", "tpot"}


def test_several_quantiles_are_refused_and_nothing_is_published(tmp_path: Path) -> None:
    train(tmp_path / "m.json", NAMES, objective="reg:quantileerror", quantile_alpha=[0.5, 0.9])
    result = refused(tmp_path / "m.json", "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert "quantiles" in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--features", "a,b", "--store", "s"], "3 features, but 2 are named"),
        (["--features", "a,b,a", "--store", "s"], "occurs twice"),
        (["--store", "s"], "without feature names"),
        (["--features", "a,b,c"], "give --store"),
        (["--features", "a,b,c", "--store", "s", "--name", "../x"], "model name"),
    ],
)
def test_an_export_error_is_reported_in_one_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    train(tmp_path / "m.json")
    result = refused(tmp_path / "m.json", *[str(tmp_path / "s") if a == "s" else a for a in arguments])
    assert result.exit_code != 0
    assert expected in result.stderr


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"a": 1}')
    result = refused(tmp_path / "m.json", "--features", "a", "--store", tmp_path / "s")
    assert result.exit_code == 1
    assert "is not an XGBoost model" in result.stderr


def test_a_linear_booster_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "m.json", NAMES, booster="gblinear", verbosity=0)
    result = refused(tmp_path / "m.json", "--store", tmp_path / "s")
    assert result.exit_code == 1
    assert "gblinear" in result.stderr
