import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PATIENCE_S

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_trainer.py"


@pytest.mark.slow
def test_the_benchmark_writes_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--batches", "3", "--fit-seconds", "1", "--sizes", "300", "--changes", "1"]
    command += ["--interval-sec", "0.2", "--sync-sec", "0.1"]
    subprocess.run([*command, "--json", str(figures)], check=True, capture_output=True, timeout=PATIENCE_S)
    document = json.loads(figures.read_text())
    assert {"figures", "machine", "versions", "settings"} == set(document)
    wanted = {"ingest_rows_per_s", "ingest_p99_during_fit_ms", "healthz_p99_during_fit_ms", "pass_300_s", "rss_mib"}
    wanted |= {"freshness_p50_s", "freshness_max_s", "ttft_mdape", "tpot_mdape", "coverage_q90"}
    assert wanted <= set(document["figures"])
    assert all(value > 0 for value in document["figures"].values())
