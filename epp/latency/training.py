"""Sending observed rows to the trainer: collected, bounded, sent in batches, kept for the next try after a failure."""

import asyncio
import logging
from collections import deque

import aiohttp
import msgspec

from epp.latency.wire import TrainingBatch, TrainingRow

logger = logging.getLogger("headroom.epp.training")

_PATH = "/add_training_data_bulk"
_REFUSED = (400, 413, 422)


class TrainingSink:
    """A queue of at most `capacity` rows; when it is full the oldest row makes room, and is counted as dropped."""

    def __init__(self, url: str, capacity: int, interval_s: float, timeout_s: float) -> None:
        self._url = url.rstrip("/") + _PATH
        self._rows: deque[TrainingRow] = deque(maxlen=capacity)
        self._interval_s = interval_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self.sent = 0
        self.dropped = 0
        self.failures = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: TrainingRow) -> None:
        if len(self._rows) == self._rows.maxlen:
            self.dropped += 1
        self._rows.append(row)

    async def run(self) -> None:
        """Sends until cancelled, then once more."""
        async with aiohttp.ClientSession(timeout=self._timeout) as session:
            try:
                while True:
                    await asyncio.sleep(self._interval_s)
                    await self._flush(session)
            except asyncio.CancelledError:
                await self._flush(session)
                raise

    async def _flush(self, session: aiohttp.ClientSession) -> None:
        if not self._rows:
            return
        batch = list(self._rows)
        self._rows.clear()
        body = msgspec.json.encode(TrainingBatch(batch))
        try:
            async with session.post(self._url, data=body, headers={"content-type": "application/json"}) as response:
                if response.status != 202:
                    refusal = f"status {response.status}: {(await response.text())[:300]}"
                    if response.status in _REFUSED:
                        return self._refused(batch, refusal)
                    raise ValueError(refusal)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._failed(batch, error)
        else:
            if self.failures:
                logger.info("the trainer takes rows again")
            self.failures = 0
            self.sent += len(batch)

    def _refused(self, batch: list[TrainingRow], refusal: str) -> None:
        """Sending the same rows again would be refused again, and would hold up all that follow."""
        self.dropped += len(batch)
        logger.error("the trainer refused %d rows, dropped: %s", len(batch), refusal)

    def _failed(self, batch: list[TrainingRow], error: Exception) -> None:
        if not self.failures:
            logger.warning("can't send %d rows to the trainer, will retry: %s", len(batch), error or type(error))
        self.failures += 1
        capacity = self._rows.maxlen or 0
        kept = batch[max(0, len(batch) + len(self._rows) - capacity) :]
        self.dropped += len(batch) - len(kept)
        self._rows.extendleft(reversed(kept))
