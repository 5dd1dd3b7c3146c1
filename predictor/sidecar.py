"""The API of llm-d's prediction sidecar: one request returns both latencies of every row.

One defect of the sidecar is not copied: with no model loaded, /predict/bulk answers 503 as /predict/bulk/strict does,
and not 200 with nulls.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from model_store import FeatureRow, row_columns
from predictor.answering import Run, count, run_inline_or_in_thread
from predictor.columns import read_columns, write_columns
from predictor.config import Config
from predictor.engine import Engine
from predictor.exceptions import PredictorError
from predictor.http import BINARY, JSON, Handler, HttpHeader, encode, read_body, send_bytes, send_json
from predictor.latency_pair import LatencyPair
from predictor.model import Array
from predictor.refusals import http_status
from predictor.wire import BulkRequest, PredictionResponse
from serving.wrong_field import locate

T = TypeVar("T")
_one = msgspec.json.Decoder(FeatureRow)
_many = msgspec.json.Decoder(BulkRequest)
_FIELDS = b'{"ttft_ms":%b,"tpot_ms":%b'


class _RefusedError(Exception):
    """A refused request; `detail` has the shape that clients of the sidecar expect."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def prediction_handlers(config: Config, engine: Engine) -> dict[str, Handler]:
    """Return the POST handlers of the prediction paths."""
    pair = LatencyPair(engine)

    def handler_of(answer: Callable[[bytes], tuple[bytes, list[Run]]], content: HttpHeader = JSON) -> Handler:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                body = await read_body(scope, receive, config.max_body_bytes)
                (document, runs), queue_ns = await run_inline_or_in_thread(len(body), answer, body)
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
        "/predict": handler_of(single),
        "/predict/columns": handler_of(columns, BINARY),
        # A batch succeeds or fails as a whole, so `errors` is always empty.
        "/predict/bulk": handler_of(lambda body: bulk(b',"errors":[]', body)),
        "/predict/bulk/strict": handler_of(lambda body: bulk(b"", body)),
    }


def _predictions(results: list[Array], example: bytes) -> bytes:
    """Encode the rows' predictions as JSON; the fields that all rows share are copied from `example`."""
    common = example[example.index(b',"predicted_at"') :]
    ttft, tpot = (encode(values.tolist())[1:-1].split(b",") for values in results)
    joined = [_FIELDS % pair for pair in zip(ttft, tpot, strict=True)]
    return (common + b",").join(joined) + common


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _RefusedError(422, [_problem(*locate(error))]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RefusedError(422, [_problem(["body"], f"not JSON: {error}")]) from error


def _problem(location: list[str], message: str) -> dict[str, Any]:
    return {"loc": location, "msg": message, "type": "value_error"}
