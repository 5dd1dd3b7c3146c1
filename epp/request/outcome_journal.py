"""A journal of ended requests on disk, for reports: a line of JSON for each, without prompts and ids."""

import asyncio
import logging
import math
from collections import deque
from pathlib import Path

import msgspec

from epp.exceptions import ConfigError
from epp.request.decisions import Record
from epp.request.shadow import Shadow

logger = logging.getLogger("headroom.epp")

_FLUSH_S = 1.0
# Lines that wait for the disk. A slow disk costs lines, never memory.
_MOST_WAITING = 20_000
# A file of this size is set aside, in place of the one that was set aside before.
_MOST_BYTES = 64 << 20


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """An ended request. Latencies are in ms, and absent where nothing was observed, predicted or wanted.

    `decided_at` is in seconds of Unix time. Of the predictions, the first is the one that clients are told, and
    `_median_ms` the median. `source` says where they came from, and `objective` is the declared objective that the
    request named.
    """

    decided_at: float
    model: str
    profile: str
    endpoint: str
    source: str = "none"
    objective: str = ""
    status: int | None = None
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    predicted_ttft_ms: float | None = None
    predicted_tpot_ms: float | None = None
    predicted_ttft_median_ms: float | None = None
    predicted_tpot_median_ms: float | None = None
    output_tokens: int | None = None
    duration_ms: float | None = None
    shadow: Shadow | None = None

    @property
    def is_met(self) -> bool | None:
        """True if the answer met its objectives. None without objectives, or if nothing was observed.

        A request that failed has missed its objectives. TPOT of a single token counts as met.
        """
        if self.slo_ttft_ms is None and self.slo_tpot_ms is None:
            return None
        if self.status is not None and self.status >= 500:
            return False
        if self.ttft_ms is None:
            return None
        is_ttft_met = self.ttft_ms <= (self.slo_ttft_ms or math.inf)
        return is_ttft_met and (self.tpot_ms or 0.0) <= (self.slo_tpot_ms or math.inf)


def row_of(record: Record, objective: str = "") -> Row:
    decision, outcome = record.decision, record.outcome
    predicted, medians = record.predicted or (None, None), record.medians or (None, None)
    return Row(
        decided_at=record.decided_at,
        model=decision.request.model,
        profile=decision.profile,
        endpoint=decision.endpoints[0].name,
        source=record.source,
        objective=objective,
        status=outcome.status,
        slo_ttft_ms=decision.request.slo_ttft_ms,
        slo_tpot_ms=decision.request.slo_tpot_ms,
        ttft_ms=outcome.ttft_ms,
        tpot_ms=outcome.tpot_ms,
        predicted_ttft_ms=predicted[0],
        predicted_tpot_ms=predicted[1],
        predicted_ttft_median_ms=medians[0],
        predicted_tpot_median_ms=medians[1],
        output_tokens=outcome.output_tokens,
        duration_ms=outcome.duration_ms,
        shadow=record.shadow,
    )


class OutcomeJournal:
    """Appends to `outcomes-N.jsonl` in a folder; N is the worker process. `dropped` counts lines that were lost."""

    def __init__(self, folder: Path, worker: int = 0, most_bytes: int = _MOST_BYTES) -> None:
        self.dropped = 0
        self._file = folder / f"outcomes-{worker}.jsonl"
        self._most_bytes = most_bytes
        self._encoder = msgspec.json.Encoder()
        self._waiting: deque[bytes] = deque()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file.touch()
        except OSError as error:
            raise ConfigError(f"--outcome-journal: can't write {self._file}: {error.strerror}") from error

    def add(self, row: Row) -> None:
        """Take an ended request. Its line is on disk a second later."""
        if len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(self._encoder.encode(row))

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_S)
                if self._waiting:
                    await asyncio.to_thread(self.flush)
        finally:
            self.flush()

    def flush(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not lines:
            return
        try:
            with self._file.open("ab") as file:
                file.write(b"\n".join(lines) + b"\n")
                is_full = file.tell() >= self._most_bytes
            if is_full:
                self._file.replace(self._file.with_suffix(".jsonl.1"))
        except OSError as error:
            if not self.dropped:
                logger.error("%s: can't write, so reports lack requests: %s", self._file, error.strerror)
            self.dropped += len(lines)
