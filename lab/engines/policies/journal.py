"""The journal of a comparison: its settings and speeds, then a line for each run, so that it can be resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from headroom.processes.exceptions import PartError
from lab.engines.policies.plan import PolicyRun
from lab.engines.policies.speeds import ServerSpeed
from lab.whole_lines import whole_lines

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True):
    """What must not change between the parts of one comparison."""

    kinds: Sequence[str]
    workload: str
    requests: int
    load: float
    seed: int
    max_prompt_tokens: int
    max_output_tokens: int


class Begin(msgspec.Struct, frozen=True):
    settings: Settings
    speeds: list[ServerSpeed]


class RunResult(msgspec.Struct, frozen=True):
    """A run's figures. `to_fastest` is the share of requests that the fastest server got; None if Envoy chose."""

    run: PolicyRun
    attainment: float
    goodput_rps: float
    errors: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    e2e_p50_ms: float
    e2e_p99_ms: float
    to_fastest: float | None = None
    predicted: float | None = None


class RunJournal:
    """The results so far. The file's first line has the settings and the servers' speeds."""

    def __init__(self, file: Path, settings: Settings) -> None:
        """Read what the file has, if it exists. Raise PartError if it belongs to other settings."""
        self._file = file
        self.speeds: list[ServerSpeed] = []
        self.results: dict[PolicyRun, RunResult] = {}
        lines = whole_lines(file) if file.exists() else []
        if not lines:
            return
        begin = _decoded(file, 1, lines[0], Begin)
        # As JSON, since a list and a tuple are the same there.
        if msgspec.json.encode(begin.settings) != msgspec.json.encode(settings):
            raise PartError(f"{file} has runs with other settings, {begin.settings}: name another file by --journal")
        self.speeds = begin.speeds
        results = [_decoded(file, number, line, RunResult) for number, line in enumerate(lines[1:], 2)]
        self.results = {result.run: result for result in results}

    def begin(self, settings: Settings, speeds: list[ServerSpeed]) -> None:
        self.speeds = speeds
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(msgspec.json.encode(Begin(settings, speeds)) + b"\n")

    def add(self, result: RunResult) -> None:
        self.results[result.run] = result
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")


def _decoded(file: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PartError(f"{file}:{number}: {error}: correct or delete the line") from error
