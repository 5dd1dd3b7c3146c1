from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from lab.evaluation.journal import Journal, JournalError
from lab.evaluation.plan import EvaluationPlan
from lab.evaluation.replay.point import PointOptions, PointResult
from tests.lab.evaluation.queue_model import run_point

PLAN = EvaluationPlan(("poisson",), ("slo",), (1,), 60.0, 600, 1, 1.02, loads=(1.0,))


def point(seed: int) -> PointResult:
    return run_point("poisson", 12.3, seed, "slo", 60.0, b"poisson", PointOptions())


def test_saved_results_are_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "points.jsonl"
    journal = Journal(file, PLAN, resume=True)
    assert not journal.resumed
    for seed in (1, 2):
        journal.add(point(seed))
    journal.save("poisson", b"models")
    again = Journal(file, PLAN, resume=True)
    assert 0 < again.spent_s < 60
    assert again.points == journal.points
    assert again.points["poisson", "slo", 12.3, 2] == point(2)
    assert (again.load("poisson"), again.load("bursts")) == (b"models", None)
    assert (again.resumed, again.stale) == (True, False)


def test_without_resume_the_old_file_is_renamed_and_preparations_are_deleted(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    journal = Journal(file, PLAN, resume=False)
    journal.add(point(1))
    journal.save("poisson", b"models")
    old = file.read_bytes()
    fresh = Journal(file, replace(PLAN, seconds=30.0), resume=False)
    assert (fresh.points, fresh.load("poisson"), fresh.load("spent_s")) == ({}, None, None)
    assert (tmp_path / "points.jsonl.previous").read_bytes() == old


def test_a_truncated_line_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    journal = Journal(file, PLAN, resume=False)
    for seed in (1, 2):
        journal.add(point(seed))
    file.write_bytes(file.read_bytes()[:-7])
    again = Journal(file, PLAN, resume=True)
    again.add(point(2))
    assert Journal(file, PLAN, resume=True).points == journal.points


def test_the_time_includes_earlier_parts(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    Journal(file, PLAN, resume=False).add(point(1))
    (tmp_path / "points.prepared" / "spent_s").write_text("3600")
    assert 3600 < Journal(file, PLAN, resume=True).spent_s < 3660


def test_results_of_other_code_are_stale(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    Journal(file, PLAN, resume=False)
    file.write_bytes(msgspec.json.encode({"seconds": 60.0, "requests": 600, "code": "0" * 16}) + b"\n")
    assert Journal(file, PLAN, resume=True).stale


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: omit --resume"),
        (b'{"seconds": 30, "requests": 600, "code": ""}\n', "has runs of 30 seconds, not 60: set --seconds 30"),
        (b'{"seconds": 60, "requests": 600, "code": ""}\nnonsense\n', r":2: .*: correct or delete the line"),
        (b'{"seconds": 60, "requests": 600, "code": ""}\n{"workload": "poisson"}\n', r":2: .*policy"),
        (b'{"seconds": "\xff"}\n', r":1: "),
    ],
)
def test_a_file_that_can_not_be_resumed_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "points.jsonl"
    file.write_bytes(content)
    with pytest.raises(JournalError, match=said):
        Journal(file, PLAN, resume=True)
    assert file.read_bytes() == content
