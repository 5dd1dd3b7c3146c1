"""The comparison of policies on real servers: its plan, objectives, journal and report, without the servers."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from headroom.processes.exceptions import PartError
from lab.engines.policies.__main__ import main
from lab.engines.policies.journal import RunJournal, RunResult, Settings
from lab.engines.policies.plan import BASE, BASE_AGAIN, OBJECTIVES, PolicyRun, RunPlan
from lab.engines.policies.report import document, section
from lab.engines.policies.speeds import ServerSpeed, with_objectives
from simulator.trace import TraceRequest
from simulator.workload import plan

SETTINGS = Settings(["tiny", "small"], "azure-conversation", 10, 0.6, 1, 400, 60)
FAST = ServerSpeed("vllm-tiny", 20.0, 0.1, 10.0, 4.0)
SLOW = ServerSpeed("vllm-small", 40.0, 0.5, 30.0, 1.0)


def result(run: PolicyRun, attainment: float) -> RunResult:
    return RunResult(run, attainment, 2.0, 0, 50.0, 90.0, 12.0, 500.0, 900.0, 0.75, 1.0)


def test_each_round_has_each_policy_once_and_the_base_twice_in_random_order() -> None:
    runs = list(RunPlan(("round-robin", BASE, "slo"), tuple(OBJECTIVES), rounds=20, seed=1).runs())
    assert runs == list(RunPlan(("round-robin", BASE, "slo"), tuple(OBJECTIVES), rounds=20, seed=1).runs())
    assert len(set(runs)) == len(runs) == 20 * 2 * 4
    first = Counter(next(run.policy for run in runs if run.round == number) for number in range(20))
    assert set(first) == {"round-robin", BASE, BASE_AGAIN, "slo"}


def test_objectives_are_multiples_of_one_servers_own_times() -> None:
    requests = plan([TraceRequest(0.0, 100, 20)], seed=1)
    (met,) = with_objectives(requests, [FAST, SLOW], OBJECTIVES["met"])
    assert (met.slo_ttft_ms, met.slo_tpot_ms) == (5 * (40 + 50), 5 * 30)
    (tight,) = with_objectives(requests, [FAST, SLOW], OBJECTIVES["tight"])
    assert (tight.slo_ttft_ms, tight.slo_tpot_ms) == (3 * (20 + 10), 3 * 10)


def test_a_comparison_goes_on_where_its_journal_ends(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    first, second = PolicyRun(0, "met", BASE), PolicyRun(0, "met", "slo")
    RunJournal(file, SETTINGS).begin(SETTINGS, [FAST, SLOW])
    RunJournal(file, SETTINGS).add(result(first, 0.5))
    with file.open("ab") as cut:
        cut.write(msgspec.json.encode(result(second, 0.5))[:40])
    resumed = RunJournal(file, SETTINGS)
    assert resumed.speeds == [FAST, SLOW]
    assert list(resumed.results) == [first]
    resumed.add(result(second, 0.9))
    assert list(RunJournal(file, SETTINGS).results) == [first, second]
    with file.open("ab") as damaged:
        damaged.write(b"{}\n")
    with pytest.raises(PartError, match=r"runs.jsonl:4: .* delete the line"):
        RunJournal(file, SETTINGS)
    with pytest.raises(PartError, match="other settings"):
        RunJournal(file, msgspec.structs.replace(SETTINGS, load=0.9))


def test_the_report_has_intervals_gains_and_the_noise(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path / "runs.jsonl", SETTINGS)
    journal.begin(SETTINGS, [FAST, SLOW])
    attained = {BASE: (0.5, 0.6), BASE_AGAIN: (0.52, 0.58), "slo": (0.7, 0.8), "round-robin": (0.4, 0.5)}
    for policy, values in attained.items():
        for number, value in enumerate(values):
            journal.add(result(PolicyRun(number, "met", policy), value))
    text = section(journal, SETTINGS)
    assert "| slo | 2 | 75.0 [" in text
    assert "| slo | 20.0 [20.0, 20.0] |" in text
    assert "the machine's noise" in text
    assert document(journal, SETTINGS)["figures"]["real_slo_attainment_slo_met"] == pytest.approx(0.75)


def test_a_journal_of_other_settings_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    RunJournal(file, SETTINGS).begin(SETTINGS, [FAST, SLOW])
    ended = CliRunner().invoke(main, ["--journal", str(file), "--requests", "77"])
    assert ended.exit_code == 1
    assert "other settings" in ended.output
