"""Predictions from prediction servers, over connections that are kept open.

This project's servers take the features as binary columns. A server that refuses columns, or the name of a feature in
them, gets rows in JSON from then on, which every implementation of the sidecar's API accepts. In rows, a server
ignores the fields that it doesn't know.
"""

import asyncio
import logging

import aiohttp
import msgspec

from epp.exceptions import PredictionUnavailableError
from epp.prediction.breaker import Replica, Replicas
from epp.prediction.features import FeatureColumns
from epp.prediction.wire import columns_body, predictions_of_columns, predictions_of_rows, rows_body
from epp.scheduling.snapshot import Predictions
from epp.trust import Trust
from serving.token_file import TokenFile

logger = logging.getLogger("headroom.epp.latency")

# Seconds that an idle connection stays open, less than a prediction server's own limit: the picker closes first.
KEEP_OPEN_S = 60
_COLUMNS, _ROWS = "/predict/columns", "/predict/bulk/strict"
_BINARY = {"content-type": "application/octet-stream"}
_JSON = {"content-type": "application/json"}
# Statuses of a server without the columns path, or of an older one that doesn't know a feature in the columns.
_KNOWS_NO_SUCH_COLUMNS = (400, 404, 405)


class RemoteLatencyClient:
    """Sends one bulk request per decision.

    When a replica refuses, the next one is asked at once. A replica that hangs uses up the deadline.
    """

    def __init__(
        self, urls: tuple[str, ...], timeout_s: float, trust: Trust | None = None, token: TokenFile | None = None
    ) -> None:
        self._replicas = Replicas(urls)
        self._trust = trust or Trust()
        self._token = token
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_OPEN_S),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def predict(self, columns: FeatureColumns) -> Predictions:
        asked: Replica | None = None
        reason = "every prediction server is paused after failures"
        try:
            async with asyncio.timeout(self._timeout_s):
                for asked in self._replicas.in_order():
                    asked.asked()
                    try:
                        predictions = await self._ask(asked, columns)
                    except (aiohttp.ClientError, msgspec.DecodeError, ValueError) as error:
                        failure = str(error) or type(error).__name__
                        asked.failed(failure, has_answered=isinstance(error, _RefusedError))
                        reason = f"{asked.url}: {failure}"
                        continue
                    asked.succeeded()
                    return predictions
        except TimeoutError:
            reason = f"no answer within {self._timeout_s * 1000:g} ms"
            if asked:
                asked.failed(reason)
                reason = f"{asked.url}: {reason}"
        except asyncio.CancelledError:
            if asked:
                asked.gave_up()
            raise
        raise PredictionUnavailableError(reason)

    def paused(self) -> dict[str, float]:
        """Return 1 for each replica that is paused after failures, else 0, by URL."""
        return {replica.url: float(not replica.available()) for replica in self._replicas}

    async def close(self) -> None:
        await self._session.close()

    async def _ask(self, replica: Replica, columns: FeatureColumns) -> Predictions:
        if replica.takes_columns:
            status, answer = await self._post(replica.url + _COLUMNS, columns_body(columns), _BINARY)
            if status == 200:
                return predictions_of_columns(answer, columns.shape[1])
            if status not in _KNOWS_NO_SUCH_COLUMNS:
                raise _refused(status, answer)
            replica.takes_columns = False
            logger.info("%s: using %s from now on: %s", replica.url, _ROWS, _refused(status, answer))
        status, answer = await self._post(replica.url + _ROWS, rows_body(columns), _JSON)
        if status != 200:
            raise _refused(status, answer)
        return predictions_of_rows(answer, columns.shape[1])

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        headers = {**headers, **self._token.header()} if self._token else headers
        async with self._session.post(url, data=body, headers=headers, ssl=self._trust.context) as response:
            return response.status, await response.read()


class _RefusedError(ValueError):
    """A prediction server has answered with another status than 200."""


def _refused(status: int, answer: bytes) -> _RefusedError:
    return _RefusedError(f"status {status}: {answer[:200].decode(errors='replace')}")
