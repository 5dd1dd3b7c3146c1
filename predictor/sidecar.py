"""The prediction sidecar's API: both latencies of every row in one request.

Where clients of the sidecar know a defect, this differs: with nothing loaded, /predict/bulk answers 503 like its strict
sister, and not 200 with nulls.
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from model_store import FeatureRow, row_columns
from predictor.answering import Run, at_leisure, count
from predictor.columns import read_columns, write_columns
from predictor.config import Config
from predictor.engine import Engine
from predictor.exceptions import PredictorError
from predictor.http import BINARY, JSON, Handler, HttpHeader, encode, read_body, send_bytes, send_json
from predictor.latency_pair import LatencyPair
from predictor.model import Array
from predictor.refusals import http_status
from predictor.wire import BulkRequest, PredictionResponse

T = TypeVar("T")
_one = msgspec.json.Decoder(FeatureRow)
_many = msgspec.json.Decoder(BulkRequest)
_PATH = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)
_FIELDS = b'{"ttft_ms":%b,"tpot_ms":%b'


class _RefusedError(Exception):
    """An answer that ends the request; `detail` has the shape that clients of the sidecar expect."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def predicting(config: Config, engine: Engine) -> dict[str, Handler]:
    """The handlers of the paths that predict, for POST."""
    pair = LatencyPair(engine)

    def answered(answer: Callable[[bytes], tuple[bytes, list[Run]]], content: HttpHeader = JSON) -> Handler:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                body = await read_body(scope, receive, config.max_body_bytes)
                (document, runs), queue_ns = await at_leisure(len(body), answer, body)
            except PredictorError as problem:
                await send_json(send, encode({"detail": str(problem)}), http_status(problem))
            except _RefusedError as refused:
                pair.count_failure()
                await send_json(send, encode({"detail": refused.detail}), refused.status)
            else:
                for run in runs:
                    count(engine, run, queue_ns)
                await send_bytes(send, document, (content,))

        return handle

    def single(body: bytes) -> tuple[bytes, list[Run]]:
        began_ns = time.perf_counter_ns()
        rows = [_decode(_one, body)]
        loaded = pair.loaded()
        if loaded is None:
            raise _RefusedError(503, "Models not ready")
        results, runs = loaded.run(row_columns(rows), began_ns)
        ttft, tpot = (float(values[0]) for values in results[:2])
        return encode(PredictionResponse(ttft, tpot, datetime.now(UTC), *loaded.about)), runs

    def bulk(closing: bytes, body: bytes) -> tuple[bytes, list[Run]]:
        began_ns = time.perf_counter_ns()
        rows = _decode(_many, body).requests
        if not 1 <= len(rows) <= config.max_rows:
            wrong = f"expected 1 to {config.max_rows} rows, got {len(rows)}"
            raise _RefusedError(422, [_problem(["body", "requests"], wrong)])
        loaded = pair.loaded()
        if loaded is None:
            raise _RefusedError(503, "Models not ready")
        results, runs = loaded.run(row_columns(rows), began_ns)
        ran_ns = time.perf_counter_ns()
        predictions = _predictions(results[:2], encode(PredictionResponse(0, 0, datetime.now(UTC), *loaded.about)))
        ended_ns = time.perf_counter_ns()
        document = (
            b'{"predictions":[%b],"total_requests":%d,"successful_predictions":%d,"failed_predictions":0,'
            b'"processing_time_ms":%b,"generation":%d%b}'
        ) % (predictions, len(rows), len(rows), repr((ended_ns - began_ns) / 1e6).encode(), loaded.generation, closing)
        runs = [replace(run, output_ns=ended_ns - ran_ns) for run in runs]
        return document, runs

    def columns(body: bytes) -> tuple[bytes, list[Run]]:
        began_ns = time.perf_counter_ns()
        rows, medians = read_columns(body, config.max_rows)
        loaded = pair.loaded()
        if loaded is None:
            raise _RefusedError(503, "Models not ready")
        results, runs = loaded.run(rows, began_ns)
        return write_columns(loaded.generation, results if medians else results[:2]), runs

    return {
        "/predict": answered(single),
        "/predict/columns": answered(columns, BINARY),
        # A batch is answered whole or refused whole, so there are never single errors to list.
        "/predict/bulk": answered(lambda body: bulk(b',"errors":[]', body)),
        "/predict/bulk/strict": answered(lambda body: bulk(b"", body)),
    }


def _predictions(results: list[Array], example: bytes) -> bytes:
    """The rows' predictions as JSON: what all of them have in common is taken from an example of one."""
    common = example[example.index(b',"predicted_at"') :]
    ttft, tpot = (encode(values.tolist())[1:-1].split(b",") for values in results)
    joined = [_FIELDS % pair for pair in zip(ttft, tpot, strict=True)]
    return (common + b",").join(joined) + common


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        message, path = (match[1], match[2]) if match else (str(error), "")
        missing = re.search(r"missing required field `(\w+)`", message)
        location = [*filter(None, re.split(r"[.\[\]]+", path)), *([missing[1]] if missing else [])]
        raise _RefusedError(422, [_problem(["body", *location], message)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RefusedError(422, [_problem(["body"], f"not JSON: {error}")]) from error


def _problem(location: list[str], message: str) -> dict[str, Any]:
    return {"loc": location, "msg": message, "type": "value_error"}
