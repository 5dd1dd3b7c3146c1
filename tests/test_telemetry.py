"""onnxruntime sends no usage data. By default it would, from its first session on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_store import open_store
from tests.live import PATIENCE_S
from tests.predictor.models import pair

ROOT = Path(__file__).parents[1]
RUN = """\
import sys
import {module}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1])
"""


@pytest.mark.parametrize("module", ["predictor.model", "trainer.graph", "epp.prediction.embedded"])
def test_onnxruntime_writes_nothing_to_the_home_folder(tmp_path: Path, module: str) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    home.mkdir()
    open_store(str(store)).publish(pair(1.0))
    (model, *_) = store.glob("ttft/*/model.onnx")
    # The variables of a build server are left out, because onnxruntime sends nothing from a build server anyway.
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN.format(module=module), str(model)]
    subprocess.run(command, env=env, check=True, timeout=PATIENCE_S)
    assert not list(home.iterdir())
