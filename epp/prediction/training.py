"""Send observed rows to the trainer in batches, from a bounded queue; a batch that fails is retried."""

import asyncio
import logging
import uuid
from collections import deque
from dataclasses import dataclass

import aiohttp
import msgspec

from epp.prediction.features import FeatureColumns
from epp.prediction.loss import Loss
from epp.prediction.wire import LengthSource, TrainingBatch, TrainingRow, training_row
from epp.trust import Trust
from serving.token_file import TokenFile

logger = logging.getLogger("headroom.epp.training")

_PATH = "/add_training_data_bulk"
_REFUSED = (400, 413, 422)
# Wait for an answer after which the trainer counts as lost, though it may still answer. The time-out is longer, because
# a busy trainer is no reason to send rows again.
_LATE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Batch:
    key: str
    body: bytes
    rows: int


class TrainingSink:
    """A queue of at most `capacity` rows. A full queue drops its oldest row for each new one.

    A batch that may have arrived is sent again unchanged under the same key, so that the trainer counts it once.
    `lost` counts dropped rows by reason.
    """

    def __init__(
        self,
        url: str,
        capacity: int,
        interval_s: float,
        timeout_s: float,
        trust: Trust | None = None,
        token: TokenFile | None = None,
    ) -> None:
        self._url = url.rstrip("/") + _PATH
        self._rows: deque[TrainingRow] = deque(maxlen=capacity)
        self._pending: _Batch | None = None
        self._interval_s = interval_s
        self._trust = trust or Trust()
        self._token = token
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._loss = Loss(logger)
        self.sent = 0
        self.lost = {"full": 0, "refused": 0}
        self.failed_sends = 0
        # The rows that a full queue had dropped when the trainer last took some.
        self._dropped_before = 0

    def __len__(self) -> int:
        return len(self._rows) + (self._pending.rows if self._pending else 0)

    def queued(self) -> list[TrainingRow]:
        """Return the rows that have never been sent."""
        return list(self._rows)

    def add(
        self,
        features: FeatureColumns,
        ttft_ms: float = 0.0,
        tpot_ms: float = 0.0,
        length_source: LengthSource = "estimate",
    ) -> None:
        """Queue one row, `features` [features, 1]; a latency of 0 means that the row doesn't carry that target."""
        if len(self._rows) == self._rows.maxlen:
            self.lost["full"] += 1
        self._rows.append(training_row(features, ttft_ms=ttft_ms, tpot_ms=tpot_ms, length_source=length_source))

    async def run(self) -> None:
        """Send until cancelled, then once more."""
        async with aiohttp.ClientSession(timeout=self._timeout) as session:
            try:
                while True:
                    await asyncio.sleep(self._interval_s)
                    await self._flush(session)
            except asyncio.CancelledError:
                await self._flush(session)
                if len(self):
                    logger.warning("%d rows are lost: the picker ends, and has not sent them to the trainer", len(self))
                raise

    async def _flush(self, session: aiohttp.ClientSession) -> None:
        if self._pending is None and self._rows:
            body = msgspec.json.encode(TrainingBatch(list(self._rows)))
            self._pending = _Batch(uuid.uuid4().hex, body, len(self._rows))
            self._rows.clear()
        batch = self._pending
        if batch is None:
            return
        loop = asyncio.get_running_loop()
        late = loop.call_later(_LATE_S, self._tell_loss, batch, f"no answer for {_LATE_S:g} s")
        try:
            refusal = await self._post(session, batch)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._tell_loss(batch, str(error) or type(error).__name__)
            self.failed_sends += 1
            return
        finally:
            late.cancel()
        self._pending = None
        if refusal:
            # Drop the batch: the trainer would refuse the same rows again, and they would block later rows.
            self.lost["refused"] += batch.rows
            logger.error("the trainer refused %d rows, dropped: %s", batch.rows, refusal)
        else:
            self.sent += batch.rows
        self._tell_return(0 if refusal else batch.rows)

    def _tell_loss(self, batch: _Batch, reason: str) -> None:
        text = "can't send %d rows to %s: %s; they are sent again, and up to %d newer rows are kept"
        self._loss.begin(text, batch.rows, self._url, reason, self._rows.maxlen)

    def _tell_return(self, taken: int) -> None:
        dropped = self.lost["full"] - self._dropped_before
        self._dropped_before = self.lost["full"]
        text = "the trainer takes rows again: %d were kept, and %d were dropped meanwhile"
        self._loss.end(text, taken + len(self._rows), dropped)

    async def _post(self, session: aiohttp.ClientSession, batch: _Batch) -> str | None:
        """Send a batch. Return None on success, the reason for a final refusal; raise an error to retry after."""
        headers = {"content-type": "application/json", "idempotency-key": batch.key}
        headers |= self._token.header() if self._token else {}
        async with session.post(self._url, data=batch.body, headers=headers, ssl=self._trust.context) as response:
            if response.status == 202:
                return None
            answer = f"status {response.status}: {(await response.text())[:300]}"
        if response.status in _REFUSED:
            return answer
        raise ValueError(answer)
