"""Each judge's own report, as it was written in front of simulated servers, and our verdict on the same requests."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab.judges import aiperf, guidellm, inference_perf, vllm_bench
from lab.judges.task import Task
from lab.judges.verdict import figures, verdict

_REPORTS = Path(__file__).with_name("reports")
_JUDGES: dict[str, ModuleType] = {
    "vllm-bench": vllm_bench,
    "inference-perf": inference_perf,
    "aiperf": aiperf,
    "guidellm": guidellm,
}
_COUNTS = {"vllm-bench": 60, "inference-perf": 8, "aiperf": 8, "guidellm": 8}
_TTFT_MS, _TPOT_MS = 250.0, 40.0
# vLLM's report is from a run with another objective.
_VLLM_TPOT_MS = 30.0


def task(folder: Path, ttft_ms: float = _TTFT_MS, tpot_ms: float = _TPOT_MS) -> Task:
    return Task(
        url="http://127.0.0.1:1",
        model="simulated-70b",
        tokenizer=folder,
        folder=folder,
        requests=8,
        rate_rps=4.0,
        prompt_tokens=500,
        output_tokens=50,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        seed=1,
        trace=folder,
    )


def decision(wanted: Task, ttft_ms: float = 100.0) -> dict[str, Any]:
    outcome = {"status": 200, "ttft_ms": ttft_ms, "tpot_ms": 10.0}
    return {"slo_ttft_ms": wanted.ttft_ms, "slo_tpot_ms": wanted.tpot_ms, "outcome": outcome}


@pytest.mark.parametrize("name", _JUDGES)
def test_equals_the_judges_goodput(name: str) -> None:
    wanted = task(_REPORTS / name, tpot_ms=_VLLM_TPOT_MS if name == "vllm-bench" else _TPOT_MS)
    judged = _JUDGES[name].read(wanted)
    found = verdict(name, judged, wanted, [decision(wanted)] * _COUNTS[name])
    assert not found.faults
    assert found.requests == _COUNTS[name]
    assert 0 < found.good == found.our_good < found.requests
    assert found.our_goodput_rps == pytest.approx(judged.goodput_rps, rel=1e-6)


@pytest.mark.parametrize("name", _JUDGES)
def test_disagrees_about_other_objectives(name: str) -> None:
    wanted = task(_REPORTS / name, ttft_ms=1.0)
    found = verdict(name, _JUDGES[name].read(wanted), wanted, [])
    assert found.our_good == 0
    assert any("good" in fault for fault in found.faults)
    assert f"objectives reached the picker with 0 of {_COUNTS[name]} requests" in found.faults


def test_tells_the_pickers_view_and_the_passed_judges() -> None:
    wanted = task(_REPORTS / "guidellm")
    found = verdict("guidellm", guidellm.read(wanted), wanted, [decision(wanted)] * 6 + [decision(wanted, 300.0)] * 2)
    assert found.picker_good == 6
    told = figures([found])
    assert told["judges_passed"] == 1
    assert told["guidellm_picker_attainment"] == 0.75
    assert told["guidellm_goodput_rps"] == pytest.approx(told["guidellm_our_goodput_rps"])


def test_reads_a_failed_request_of_inference_perf(tmp_path: Path) -> None:
    shutil.copytree(_REPORTS / "inference-perf", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "per_request_lifecycle_metrics.json"
    entries = json.loads(file.read_text())
    failed = {**entries[0], "info": None, "error": {"error_type": "ClientError", "error_msg": "status 503"}}
    file.write_text(json.dumps([*entries, failed]))
    found = verdict("inference-perf", inference_perf.read(task(tmp_path)), task(tmp_path), [])
    assert any("1 requests failed" in fault for fault in found.faults)


def test_cuts_the_trace_for_aiperf(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 1000 * n, "input_length": 3000, "output_length": n, "hash_ids": list(range(6))} for n in range(20)
    ]
    cut = aiperf.excerpt(rows, task(tmp_path))
    assert len(cut) == 8
    assert cut[0] == {"timestamp": 0, "input_length": 1000, "output_length": 2, "hash_ids": [0, 1]}
    assert cut[-1]["timestamp"] == 2000
