"""The soak, for some seconds: the hour is run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PATIENCE_S

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "lab.soak"]


@pytest.mark.slow
def test_both_fronts_lose_nothing_while_endpoints_and_configuration_change(tmp_path: Path) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    command = [*COMMAND, "--minutes", "0.3", "--rate", "20", "--workers", "2", "--json", str(figures)]
    command += ["--out", str(page)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE_S)
    assert result.returncode == 0, result.stdout + result.stderr
    measured = json.loads(figures.read_text())["figures"]
    for front in ("http2", "grpcio"):
        assert measured[f"soak_{front}_2_lost"] == measured[f"soak_{front}_2_in_flight"] == 0
        assert measured[f"soak_{front}_2_sent"] > measured[f"soak_{front}_2_aborted"] > 0
        assert measured[f"soak_{front}_2_rss_mib"] > 0
        assert f"| {front}, 2 | 0 of " in page.read_text()
    assert "(soak.png)" in page.read_text()
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
