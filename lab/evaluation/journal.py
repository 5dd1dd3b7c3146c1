"""A journal of runs: each result is appended to a file, so that an interrupted evaluation can be resumed.

The first line has the length of the runs and a digest of the code that made them. Each other line is a result. A folder
next to the file has the time that the evaluation has taken, and each workload's prepared models, prediction quality and
bounds. Only the models are large, and they are needed only for a workload with missing runs.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from lab.evaluation.plan import EvaluationPlan
from lab.evaluation.replay.point import PointResult
from lab.whole_lines import whole_lines

Key = tuple[str, str, float, int]  # workload, policy, requests/s, seed
_CODE = ("simulator", "epp", "trainer", "predictor", "model_store", "lab/evaluation")
_ROOT = Path(__file__).parents[2]
_SPENT = "spent_s"
T = TypeVar("T")


class JournalError(Exception):
    """The evaluation can't be resumed from the file; the text says why, and what to do."""


class _Header(msgspec.Struct, frozen=True):
    seconds: float
    requests: int
    code: str


def code_digest() -> str:
    """Return a digest of all code that decides a run's result."""
    digest = hashlib.sha256()
    for folder in _CODE:
        for file in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """All results so far, by key. `stale`: some were made by an earlier version of the code."""

    def __init__(self, file: Path, plan: EvaluationPlan, resume: bool) -> None:
        """Resume from `file`, or begin again and rename the old file to `.previous`. Raise JournalError."""
        self._file, self._prepared = file, file.with_suffix(".prepared")
        self.points: dict[Key, PointResult] = {}
        self.stale = False
        self.resumed = resume and file.exists()
        if self.resumed:
            self._read(plan)
        else:
            self._begin(plan)
        self._spent_before_s = float(self.load(_SPENT) or 0)
        self._began_at = time.monotonic()

    @property
    def spent_s(self) -> float:
        """The wall time in s, including that of the resumed evaluations, each up to its last write."""
        return self._spent_before_s + time.monotonic() - self._began_at

    def points_of(self, plan: EvaluationPlan, workload: str) -> tuple[PointResult, ...]:
        """Return the results so far that the plan can use."""
        return tuple(
            point
            for point in self.points.values()
            if point.workload == workload and point.policy in plan.policies and point.seed in plan.seeds
        )

    def add(self, point: PointResult) -> None:
        self._append(msgspec.json.encode(point))
        self.points[_key(point)] = point
        self._write(_SPENT, str(self.spent_s).encode())

    def load(self, name: str) -> bytes | None:
        """Return the data saved under `name`; None if there is none."""
        try:
            return (self._prepared / name).read_bytes()
        except FileNotFoundError:
            return None

    def save(self, name: str, data: bytes) -> None:
        self._write(name, data)
        self._write(_SPENT, str(self.spent_s).encode())

    def _write(self, name: str, data: bytes) -> None:
        self._prepared.mkdir(exist_ok=True)
        part = self._prepared / f"{name}.part"
        part.write_bytes(data)
        part.replace(self._prepared / name)

    def _begin(self, plan: EvaluationPlan) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            self._file.replace(self._file.with_name(self._file.name + ".previous"))
        for file in self._prepared.glob("*"):
            file.unlink()
        self._append(msgspec.json.encode(_Header(plan.seconds, plan.requests, code_digest())))

    def _read(self, plan: EvaluationPlan) -> None:
        # A run whose line was not written to its end is made again.
        lines = whole_lines(self._file)
        if not lines:
            raise JournalError(f"{self._file} is empty: omit --resume")
        header = self._decode(msgspec.json.Decoder(_Header).decode, lines[0], 1)
        for name in ("seconds", "requests"):
            was, wanted = getattr(header, name), getattr(plan, name)
            if was != wanted:
                advice = f"set --{name} {was:g}, or omit --resume"
                raise JournalError(f"{self._file} has runs of {was:g} {name}, not {wanted:g}: {advice}")
        self.stale = header.code != code_digest()
        decode = msgspec.json.Decoder(PointResult).decode
        found = [self._decode(decode, line, number) for number, line in enumerate(lines[1:], 2)]
        self.points = {_key(point): point for point in found}

    def _decode(self, decode: Callable[[bytes], T], line: bytes, number: int) -> T:
        try:
            return decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(f"{self._file}:{number}: {error}: correct or delete the line") from error

    def _append(self, line: bytes) -> None:
        with self._file.open("ab") as file:
            file.write(line + b"\n")


def _key(point: PointResult) -> Key:
    return point.workload, point.policy, point.requests_per_s, point.seed
