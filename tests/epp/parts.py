"""A picker put together for tests: all of it but the transport."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epp.exceptions import PredictionUnavailableError
from epp.extproc.exchange import Exchange
from epp.extproc.messages import LB_NAMESPACE, SERVED_KEY, BodyMode
from epp.extproc.protocol.base_pb2 import HeaderMap, HeaderValue
from epp.extproc.protocol.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from epp.extproc.visibility import Visibility
from epp.metrics import Metrics
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.client import LatencyClient
from epp.prediction.features import FeatureColumns
from epp.prediction.training import TrainingSink
from epp.prediction.wire import TrainingRow
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog
from epp.request.director import Director
from epp.request.outcomes import Outcomes
from epp.request.overload import Overload
from epp.request.parsed import RequestReader
from epp.request.routed import Bookkeeping
from epp.request.tokens import TokenEstimator, Tokenizer
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.snapshot import Endpoint, Predictions


@dataclass
class FixedPredictions:
    """A latency client that answers the same for every decision, or not at all; further rows get the same again."""

    values: Sequence[tuple[float, float]] | None

    def predict(self, columns: FeatureColumns) -> Predictions:
        if self.values is None:
            raise PredictionUnavailableError("nobody answers")
        rows = np.array(self.values, dtype=float)
        ttft, tpot = np.tile(rows, (columns.shape[1] // len(rows), 1)).T
        return Predictions(ttft, tpot, 3, "remote")

    async def close(self) -> None: ...


def build_director(
    *,
    endpoints: int = 2,
    latency: LatencyClient | None = None,
    config: str = "",
    observed_per_second: float = 100,
    objectives: Objectives | None = None,
) -> Director:
    pool = Pool(PrefixIndex(1000), 60.0)
    pool.replace_endpoints(Endpoint(f"pod-{i}", f"10.0.0.{i}:8000") for i in range(endpoints))
    for slot in pool.endpoints:
        pool.record_metrics(slot, 0, 0, 0)
    training = TrainingSink("http://127.0.0.1:1", 100, 1, 1)
    outcomes = Outcomes(Metrics(), training, objective_label=(objectives or Objectives()).label_of)
    budget = ObservationBudget(observed_per_second, 1e6)
    books = Bookkeeping(pool, outcomes, DecisionLog(100), budget, TokenEstimator())
    return Director(load_scheduler(config or DEFAULT_CONFIG, {}), books, latency)


def queued_rows(director: Director) -> list[TrainingRow]:
    """Return the rows that wait to be sent to the trainer."""
    training = director.books.outcomes.training
    assert isinstance(training, TrainingSink)
    return training.queued()


NOTHING_SHOWN = Visibility()
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello " * 40}]}).encode()


class Gateway:
    """Plays Envoy's side of one exchange."""

    def __init__(
        self,
        director: Director,
        *,
        full_duplex: bool = False,
        response_mode: "BodyMode" = BodyMode.NONE,
        visibility: Visibility = NOTHING_SHOWN,
        tokenizer: Tokenizer | None = None,
        overload: Overload | None = None,
    ) -> None:
        reader = RequestReader(director.books.tokens, tokenizer, base_model=director.books.base_model)
        self.exchange = Exchange(reader, director, visibility, overload or Overload())
        # How long each message waits in the front.
        self.waited_s = 0.0
        both = BodyMode.FULL_DUPLEX_STREAMED
        self._protocol = ProtocolConfiguration(
            request_body_mode=both if full_duplex else BodyMode.BUFFERED,
            response_body_mode=both if full_duplex else response_mode,
        )

    async def request_headers(self, **headers: str) -> list[ProcessingResponse]:
        return await self._request_headers(headers, end_of_stream=False)

    async def bodiless_request(self, **headers: str) -> list[ProcessingResponse]:
        return await self._request_headers(headers, end_of_stream=True)

    async def _request_headers(self, headers: dict[str, str], *, end_of_stream: bool) -> list[ProcessingResponse]:
        message = ProcessingRequest(
            request_headers=header_block(headers, end_of_stream), protocol_config=self._protocol
        )
        return await self.send(message)

    async def request_body(self, body: bytes, end_of_stream: bool = True) -> list[ProcessingResponse]:
        return await self.send(ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end_of_stream)))

    async def response_headers(
        self, status: int | str = 200, content_type: str = "text/event-stream", served: str = ""
    ) -> ProcessingResponse:
        headers = {":status": str(status), "content-type": content_type}
        message = ProcessingRequest(response_headers=header_block(headers, False))
        if served:
            fields = message.metadata_context.filter_metadata[LB_NAMESPACE].fields
            fields[SERVED_KEY].string_value = served
        (answer,) = await self.send(message)
        return answer

    async def response_body(self, body: bytes, end_of_stream: bool = False) -> list[ProcessingResponse]:
        return await self.send(ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end_of_stream)))

    async def send(self, message: ProcessingRequest) -> list[ProcessingResponse]:
        answers = self.exchange.receive(message.SerializeToString(), self.waited_s)
        found = answers if isinstance(answers, list) else await answers
        self.exchange.settle()
        return [ProcessingResponse.FromString(answer) for answer in found]


def header_block(headers: dict[str, str], end_of_stream: bool) -> HttpHeaders:
    values = [HeaderValue(key=key.replace("_", "-"), raw_value=value.encode()) for key, value in headers.items()]
    return HttpHeaders(headers=HeaderMap(headers=values), end_of_stream=end_of_stream)


def set_headers(answer: ProcessingResponse) -> dict[str, str]:
    """Return the headers that an answer sets, in either of their places."""
    field = answer.request_body if answer.HasField("request_body") else answer.request_headers
    return {o.header.key: o.header.raw_value.decode() for o in field.response.header_mutation.set_headers}
