"""Predictions from the prediction servers, over connections that are kept open."""

import asyncio

import aiohttp
import msgspec
import numpy as np

from epp.exceptions import PredictionUnavailableError
from epp.features import FeatureColumns
from epp.latency.breaker import Replica, Replicas
from epp.latency.trust import Trust
from epp.latency.wire import PredictedBatch, PredictionBatch, prediction_rows
from epp.scheduling.snapshot import Predictions

_PATH = "/predict/bulk/strict"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PredictedBatch)


class RemoteLatencyClient:
    """One bulk request a decision. A replica that refuses is passed over at once; one that hangs costs the deadline."""

    def __init__(self, urls: tuple[str, ...], timeout_s: float, trust: Trust | None = None) -> None:
        self._replicas = Replicas(urls)
        self._trust = trust or Trust()
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            headers={"content-type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def predict(self, columns: FeatureColumns) -> Predictions:
        body = _encoder.encode(PredictionBatch(prediction_rows(columns)))
        rows = columns.shape[1]
        asked: Replica | None = None
        reason = "every prediction server is paused after failures"
        try:
            async with asyncio.timeout(self._timeout_s):
                for asked in self._replicas.in_order():
                    asked.asked()
                    try:
                        predictions = await self._ask(asked, body, rows)
                    except (aiohttp.ClientError, msgspec.DecodeError, ValueError) as error:
                        asked.failed()
                        reason = f"{asked.url}: {error or type(error).__name__}"
                        continue
                    asked.succeeded()
                    return predictions
        except TimeoutError:
            reason = f"no answer within {self._timeout_s * 1000:g} ms"
            if asked:
                asked.failed()
                reason = f"{asked.url}: {reason}"
        except asyncio.CancelledError:
            if asked:
                asked.gave_up()
            raise
        raise PredictionUnavailableError(reason)

    def paused(self) -> dict[str, float]:
        """1 for each replica that isn't asked just now, after failures."""
        return {replica.url: float(not replica.available()) for replica in self._replicas}

    async def close(self) -> None:
        await self._session.close()

    async def _ask(self, replica: Replica, body: bytes, rows: int) -> Predictions:
        async with self._session.post(replica.url + _PATH, data=body, ssl=self._trust.context) as response:
            answer = await response.read()
            if response.status != 200:
                raise ValueError(f"status {response.status}: {answer[:200].decode(errors='replace')}")
        batch = _decoder.decode(answer)
        values = np.array([(p.ttft_ms, p.tpot_ms) for p in batch.predictions]).reshape(-1, 2)
        if len(values) != rows or not np.isfinite(values).all():
            raise ValueError(f"expected {rows} rows of finite numbers, got {len(values)} rows")
        return Predictions(values[:, 0], values[:, 1], batch.generation, "remote")
