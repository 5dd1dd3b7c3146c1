import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PATIENCE_S

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_predictor.py"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("wrk"), reason="needs Debian's wrk")
def test_the_benchmark_writes_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--seconds", "0.5", "--rounds", "1", "--swaps", "20", "--starts", "1"]
    command += ["--json", str(figures)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE_S)
    assert result.returncode == 0, result.stderr
    document = json.loads(figures.read_text())
    assert {"figures", "machine", "versions", "settings"} == set(document)
    measured = document["figures"]
    wanted = {"single_rps_c1", "single_rps_c32", "single_p99_ms_c32", "bulk100_rows_per_s", "bulk1000_over_ort"}
    wanted |= {"rss_mib", "ready_s", "swap_failed", "swap_p99_ratio", "swaps_rss_growth_mib"}
    wanted |= {f"bulk1000_share_{stage}" for stage in ("parse", "tensor", "run", "serialise")}
    assert wanted <= set(measured)
    assert all(math.isfinite(value) for value in measured.values())
    assert measured["swap_failed"] == 0
    assert measured["swap_swaps"] > 0
    assert not any(value for name, value in measured.items() if "_failed_" in name)
    assert sum(value for name, value in measured.items() if "_share_" in name) == pytest.approx(1, abs=1e-3)


def test_a_missing_load_generator_is_answered_with_how_to_install_it(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT)], env={"PATH": str(tmp_path)}, capture_output=True, timeout=PATIENCE_S
    )
    assert result.returncode == 1
    assert b"apt-get install wrk" in result.stderr
