"""No request is lost to a prediction, however it fails."""

import logging
from collections.abc import Awaitable

import numpy as np
import pytest

from epp.prediction.features import FeatureColumns
from epp.request.director import Director
from epp.scheduling.configuration.config import DEFAULT_CONFIG
from epp.scheduling.snapshot import Predictions
from tests.epp.parts import CHAT, Gateway, build_director, set_headers


class Broken:
    """A latency client that fails unexpectedly: at once, when it is awaited, or by its answer."""

    def __init__(self, way: str) -> None:
        self.way = way

    def predict(self, columns: FeatureColumns) -> Predictions | Awaitable[Predictions]:
        if self.way == "at once":
            raise MemoryError
        return self._later()

    async def _later(self) -> Predictions:
        if self.way == "later":
            raise OSError(24, "Too many open files")
        return Predictions(np.ones(2), np.ones(2), 1, "remote")

    async def close(self) -> None: ...


@pytest.mark.parametrize("way", ["at once", "later", "by its answer"])
async def test_a_request_is_routed_without_a_prediction_that_fails(
    way: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "by its answer":
        monkeypatch.setattr(Predictions, "times", lambda *_: 1 / 0)
    director = build_director(latency=Broken(way))
    for _ in range(3):
        gateway = Gateway(director)
        await gateway.request_headers(x_prediction_based_scheduling="true")
        (answer,) = await gateway.request_body(CHAT)
        assert "x-gateway-destination-endpoint" in set_headers(answer)
    records = list(director.books.decisions.newest(2))
    assert [record.decision.profile for record in records] == ["default", "default"]
    assert all(record.prediction_error for record in records)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == ["predictions fail unexpectedly; requests are routed without them"]


class FarOff:
    """A latency client whose medians are longer than any test."""

    def predict(self, columns: FeatureColumns) -> Predictions:
        far_ms = np.full(columns.shape[1], 1e7)
        return Predictions(far_ms, far_ms, 1, "remote", far_ms, far_ms)

    async def close(self) -> None: ...


async def serve(director: Director) -> None:
    gateway = Gateway(director)
    await gateway.request_headers(x_prediction_based_scheduling="true")
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    await gateway.response_body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    gateway.exchange.close()


async def test_a_strategy_that_never_doubts_predictions_does_not_say_that_it_does() -> None:
    scorer = "- type: slo-scorer\n"
    config = DEFAULT_CONFIG.replace(scorer, f"{scorer}  parameters: {{strategy: reference}}\n")
    director = build_director(latency=FarOff(), config=config)
    for _ in range(30):
        await serve(director)
    (latest,) = director.books.decisions.newest(1)
    assert latest.decision.profile == "slo"
    assert director.books.confidence.may_decide


async def test_predictions_that_are_far_off_do_not_decide() -> None:
    director = build_director(latency=FarOff())
    while director.books.confidence.may_decide:
        await serve(director)
        assert director.decided < 50
    await serve(director)
    (latest,) = director.books.decisions.newest(1)
    (first,) = list(director.books.decisions.newest(50))[-1:]
    assert first.decision.profile == "slo"
    assert latest.decision.profile == "default"
    assert latest.decision.candidates.predictions, "they are still compared"
    assert latest.prediction_error == "predictions are too far from what is observed"
