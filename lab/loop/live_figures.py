"""The demo's figures while it runs, in a file that the picker's live page shows."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headroom.files import replace_file
from simulator.outcome import Outcome
from simulator.summary import summarise

# Seconds between two writes, and between two points of a line.
_EVERY_S = 1.0


class PolicySoFar(msgspec.Struct):
    """A policy's figures so far. `attained[i]` is the share that met its objectives within `at_s[i]` of its start."""

    name: str
    requests: int = 0
    attainment: float | None = None
    ttft_p95_ms: float | None = None
    tpot_p95_ms: float | None = None
    at_s: list[float] = []
    attained: list[float] = []
    is_done: bool = False


class LiveFigures:
    """Takes each policy's outcomes as they come, one policy after the other."""

    def __init__(self, file: Path, policies: Sequence[str]) -> None:
        self._file = file
        self._policies = {name: PolicySoFar(name) for name in policies}
        self._running: PolicySoFar | None = None
        self._outcomes: list[Outcome] = []
        self._began_s = self._wrote_s = 0.0
        self._write()

    def begin(self, name: str) -> None:
        """Begin a policy's turn. The turn of a name that isn't compared is ignored."""
        self._running = self._policies.get(name)
        self._outcomes.clear()
        self._began_s = self._wrote_s = time.monotonic()

    def note(self, outcome: Outcome) -> None:
        if self._running is None:
            return
        self._outcomes.append(outcome)
        if time.monotonic() - self._wrote_s >= _EVERY_S:
            self._update(self._running)

    def end(self) -> None:
        """End the policy's turn."""
        if self._running is not None:
            self._running.is_done = True
            self._update(self._running)
        self._running = None

    def _update(self, policy: PolicySoFar) -> None:
        now_s = self._wrote_s = time.monotonic()
        policy.requests = len(self._outcomes)
        if self._outcomes:
            figures = summarise(self._outcomes, max(now_s - self._began_s, 1e-3))
            attained = policy.attainment = figures["slo_attainment"]
            policy.ttft_p95_ms, policy.tpot_p95_ms = figures["ttft_ms"].get("p95"), figures["tpot_ms"].get("p95")
            # Whole seconds, so that the policies' lines have points at the same times.
            policy.at_s.append(round(now_s - self._began_s))
            policy.attained.append(attained)
        self._write()

    def _write(self) -> None:
        replace_file(self._file, msgspec.json.encode({"policies": list(self._policies.values())}).decode())
