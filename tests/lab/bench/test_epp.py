import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.bench.epp.__main__ import main

# A measurement waits for many processes to start, which takes minutes while the machine is busy.
_MEASURING_S = 280
_TEST_S = 300
SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_epp.py"
_PEER = (
    'exec "$PYTHON" -m epp --host 127.0.0.1 --pool-name peer --grpc-port $GRPC_PORT --grpc-health-port $HEALTH_PORT '
    "--metrics-port $METRICS_PORT --endpoints $ENDPOINTS --secure-serving=$SECURE_SERVING "
    "--refresh-metrics-interval $REFRESH_METRICS_INTERVAL --enable-latency-predictor "
    "--prediction-server-url $PREDICTION_SERVER_URL --training-server-url $TRAINING_SERVER_URL"
)


def _figures(folder: Path, *flags: str, env: Mapping[str, str] | None = None) -> dict[str, float]:
    file = folder / "figures.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--seconds", "0.1", "--json", str(file), *flags]
    result = subprocess.run(command, env=env, capture_output=True, timeout=_MEASURING_S)
    assert result.returncode == 0, result.stderr.decode()[-1000:]
    document = json.loads(file.read_text())
    assert {"figures", "machine", "versions", "settings"} == set(document)
    assert document["settings"]["left_out"] == {}
    figures: dict[str, float] = document["figures"]
    assert all(math.isfinite(value) for value in figures.values())
    return figures


@pytest.mark.slow
@pytest.mark.timeout(_TEST_S)
def test_decisions_chunks_scraping_envoy_and_overload_are_measured(tmp_path: Path) -> None:
    measured = _figures(tmp_path, "--only", "decide,chunks,scrape,envoy,overload")
    wanted = {"decide_default_100_p50_ms", "decide_slo_remote_100_p50_ms", "cpu_ratio_1000_to_1_tokens"}
    wanted |= {f"decide_slo_embedded_{n}_{p}_ms" for n in (10, 100, 1000) for p in ("p50", "p99")}
    wanted |= {"extproc_cpu_us_per_request_slo_200_chunks", "observed_chunk_cpu_us", "scrape_cores_20_endpoints"}
    assert wanted | {"envoy_added_p50_ms", "envoy_added_p99_ms"} <= set(measured)
    assert {"overload_capacity_per_s", "overload_fixed_picked_share", "overload_degrading_picked_share"} <= set(
        measured
    )
    # Pages can't be fresher than the scrape interval allows: a smaller value would mean a wrong count of pages.
    assert measured["scrape_freshness_ms_20_endpoints"] > 40


@pytest.mark.slow
@pytest.mark.timeout(_TEST_S)
def test_a_peer_is_measured_in_the_same_run(tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(tmp_path)}
    measured = _figures(tmp_path, "--only", "extproc", "--peer-command", f"sh -c '{_PEER}'", env=env)
    cpu = {f"extproc_cpu_us_per_request_{profile}" for profile in ("default", "slo")}
    ours = cpu | {"extproc_streams_per_s", "pick_slo_p50_ms", "cpu_us_per_request_400k_prompt", "rss_mib"}
    ratios = {"peer_cpu_ratio_default", "peer_cpu_ratio_slo", "peer_cpu_ratio_400k_prompt"}
    assert ours | {f"peer_{name}" for name in ours} | ratios <= set(measured)
    assert measured["slo_predicted_share"] == 1
    ratio = measured["extproc_cpu_us_per_request_slo"] / measured["peer_extproc_cpu_us_per_request_slo"]
    assert measured["peer_cpu_ratio_slo"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(_TEST_S)
def test_both_fronts_are_measured_in_one_run_and_written_to_a_page(tmp_path: Path) -> None:
    page = tmp_path / "fronts.md"
    measured = _figures(tmp_path, "--only", "fronts", "--out", str(page))
    ratios = {f"front_{name}" for name in ("cpu_ratio_default", "cpu_ratio_slo", "pick_c32_p50_ratio")}
    ratios |= {f"front_{name}_ratio" for name in ("chunk_cpu", "streams_200", "rss", "rss_idle")}
    absolute = {f"cpu_us_per_request_{profile}{n}" for profile in ("default", "slo") for n in ("", "_c1", "_c32")}
    absolute |= {f"pick_c{n}_p50_ms" for n in (1, 8, 32)} | {"streams_200_per_s", "chunk_cpu_us", "rss_mib"}
    assert ratios | {f"front_{front}_{name}" for front in ("own", "grpcio") for name in absolute} <= set(measured)
    # In one round the ratio is that of the two figures.
    ratio = measured["front_own_cpu_us_per_request_default"] / measured["front_grpcio_cpu_us_per_request_default"]
    assert measured["front_cpu_ratio_default"] == pytest.approx(ratio, rel=1e-3)
    assert all(f"`{name}`" in page.read_text() for name in ratios)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "chunks,nonsense"], "nonsense is no part: expected some of decide"),
        (["--peer", "127.0.0.1:1", "--peer-command", "true"], "exclude each other"),
        (["--peer", "nowhere"], "nowhere"),
        (["--only", "decide", "--out", "new.md"], "name this part in --only"),
        (["--out", str(SCRIPT)], "no place for the table"),
    ],
)
def test_bad_options_are_refused(flags: list[str], said: str) -> None:
    result = CliRunner().invoke(main, flags, catch_exceptions=False)
    assert result.exit_code == 2
    assert said in result.stderr
