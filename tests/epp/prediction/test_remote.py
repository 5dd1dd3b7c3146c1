import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from aiohttp import web

from epp.exceptions import PredictionUnavailableError
from epp.prediction.breaker import Replica
from epp.prediction.embedded import EmbeddedLatencyClient
from epp.prediction.remote import KEEP_OPEN_S, RemoteLatencyClient
from epp.prediction.training import TrainingSink
from model_store import ROW_NAMES, open_store
from predictor.server import KEEP_ALIVE_S
from tests.live import PATIENCE_S, call
from tests.predictor.models import pair, running_predictor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROWS = np.zeros((len(ROW_NAMES), 3), dtype=np.float32)


@asynccontextmanager
async def server(path: str, handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def predictor(handler: Handler) -> AbstractAsyncContextManager[str]:
    return server("/predict/bulk/strict", handler)


async def answer(request: web.Request) -> web.Response:
    rows = (await request.json())["requests"]
    predictions = [{"ttft_ms": 100.5, "tpot_ms": index} for index in range(len(rows))]
    return web.json_response({"predictions": predictions, "generation": 4})


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def refuse(request: web.Request) -> web.Response:
    return web.json_response({"detail": "Models not ready"}, status=503)


async def short(request: web.Request) -> web.Response:
    return web.json_response({"predictions": [{"ttft_ms": 1, "tpot_ms": 1}]})


async def test_one_request_brings_all_predictions() -> None:
    async with predictor(answer) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        predictions = await client.predict(ROWS)
        await client.close()
    assert predictions.tpot_ms.tolist() == [0, 1, 2]
    assert (predictions.generation, predictions.source) == (4, "remote")


@pytest.mark.parametrize("broken", [refuse, short])
async def test_a_replica_with_a_bad_answer_is_skipped(broken: Handler) -> None:
    async with predictor(broken) as bad, predictor(answer) as good:
        client = RemoteLatencyClient((bad, good), timeout_s=PATIENCE_S)
        for _ in range(4):
            assert (await client.predict(ROWS)).generation == 4
        await client.close()


async def test_an_unreachable_replica_is_skipped() -> None:
    async with predictor(answer) as good:
        client = RemoteLatencyClient(("http://127.0.0.1:1", good), timeout_s=PATIENCE_S)
        for _ in range(4):
            assert (await client.predict(ROWS)).generation == 4
        await client.close()


async def test_a_hanging_replica_costs_one_deadline_and_is_then_skipped() -> None:
    asked = 0

    async def hang_counted(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return await hang(request)

    async with predictor(hang_counted) as url:
        client = RemoteLatencyClient((url,), timeout_s=0.05)
        for expected in ("no answer within 50 ms", "paused", "paused"):
            with pytest.raises(PredictionUnavailableError, match=expected):
                await client.predict(ROWS)
        await client.close()
    assert asked == 1


async def test_a_hung_predictor_costs_a_handful_of_many_concurrent_requests() -> None:
    asked = 0

    async def count_and_hang(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return await hang(request)

    async with predictor(count_and_hang) as url:
        client = RemoteLatencyClient((url,), timeout_s=0.02)
        waited = 0
        for _ in range(30):
            results = await asyncio.gather(*(client.predict(ROWS) for _ in range(4)), return_exceptions=True)
            assert all(isinstance(result, PredictionUnavailableError) for result in results)
            waited += sum("no answer within" in str(result) for result in results)
        await client.close()
    # The first four requests wait together. After each pause, a single request tries the replica.
    assert waited == asked <= 4 + 3


async def test_one_request_tries_a_predictor_after_its_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Replica, "FIRST_PAUSE_S", 0.01)
    is_up = False

    async def recover(request: web.Request) -> web.Response:
        return await (answer if is_up else refuse)(request)

    async with predictor(recover) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        with pytest.raises(PredictionUnavailableError, match="503"):
            await client.predict(ROWS)
        is_up = True

        async def predicted() -> bool:
            try:
                await client.predict(ROWS)
            except PredictionUnavailableError:
                return False
            return True

        async with asyncio.timeout(PATIENCE_S):
            while not await predicted():
                await asyncio.sleep(0.01)
        assert all(await asyncio.gather(*(predicted() for _ in range(5))))
        await client.close()


async def test_a_predictor_that_answers_is_tried_again_sooner_than_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr("epp.prediction.breaker.time", SimpleNamespace(monotonic=lambda: now_s))
    found = {}
    for has_answered in (True, False):
        replica = Replica("http://one")
        for _ in range(8):
            replica.failed("no model yet", has_answered=has_answered)
            found[has_answered] = replica.paused_until - now_s
            now_s = replica.paused_until
    assert found == {True: 1.0, False: 10.0}
    async with predictor(refuse) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        for _ in range(8):
            with pytest.raises(PredictionUnavailableError, match="503"):
                await client.predict(ROWS)
            now_s += 1.0
        await client.close()


async def test_a_lost_predictor_is_logged_once_and_its_return_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Replica, "FIRST_PAUSE_S", 0.0)
    caplog.set_level(logging.INFO)
    is_lost = True

    async def recover(request: web.Request) -> web.Response:
        return await (refuse(request) if is_lost else answer(request))

    async with predictor(recover) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        for _ in range(6):
            with pytest.raises(PredictionUnavailableError):
                await client.predict(ROWS)
        is_lost = False
        for _ in range(2):
            await client.predict(ROWS)
        await client.close()
    said = [record.getMessage() for record in caplog.records if url in record.getMessage()]
    assert [line for line in said if "does not predict" in line] == [
        f'{url} does not predict; it is tried now and then: status 503: {{"detail": "Models not ready"}}'
    ]
    assert said[-1] == f"{url} predicts again"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_rows_reach_a_trainer_that_was_unreachable() -> None:
    received: list[float] = []
    keys: set[str] = set()
    failures = 2

    async def take(request: web.Request) -> web.Response:
        nonlocal failures
        keys.add(request.headers["idempotency-key"])
        if failures:
            failures -= 1
            return web.Response(status=503)
        received.extend(entry["actual_ttft_ms"] for entry in (await request.json())["entries"])
        return web.json_response({"message": "Accepted"}, status=202)

    async with server("/add_training_data_bulk", take) as url:
        sink = TrainingSink(url, 10, 0.01, 1)
        for number in range(1, 4):
            sink.add(ROWS[:, :1], ttft_ms=number)
        task = asyncio.create_task(sink.run())
        await until(lambda: len(received) == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert received == [1, 2, 3]
    assert len(keys) == 1
    assert (sink.sent, sink.lost) == (3, {"full": 0, "refused": 0})


async def test_a_lost_trainer_is_logged_once_and_its_return_once_with_the_rows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headroom.epp.training")
    is_lost = True

    async def recover(request: web.Request) -> web.Response:
        return web.Response(status=503, text="away") if is_lost else web.Response(status=202)

    async with server("/add_training_data_bulk", recover) as url:
        sink = TrainingSink(url, 2, 0.01, 1)
        sink.add(ROWS[:, :1], ttft_ms=1)
        task = asyncio.create_task(sink.run())
        await until(lambda: sink.failed_sends == 3)
        for number in range(5):
            sink.add(ROWS[:, :1], ttft_ms=number)
        is_lost = False
        await until(lambda: sink.sent == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"can't send 1 rows to {url}/add_training_data_bulk: status 503: away;"
        " they are sent again, and up to 2 newer rows are kept",
        "the trainer takes rows again: 3 were kept, and 3 were dropped meanwhile",
    ]


async def test_a_trainer_that_answers_late_counts_as_lost_before_the_time_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("epp.prediction.training._LATE_S", 0.02)
    caplog.set_level(logging.INFO, "headroom.epp.training")
    mended = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        await mended.wait()
        return web.Response(status=202)

    async with server("/add_training_data_bulk", hold) as url:
        sink = TrainingSink(url, 2, 0.01, PATIENCE_S)
        sink.add(ROWS[:, :1], ttft_ms=1)
        task = asyncio.create_task(sink.run())
        await until(lambda: len(caplog.records) == 1)
        mended.set()
        await until(lambda: sink.sent == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lost, back = [record.getMessage() for record in caplog.records]
    assert ": no answer for 0.02 s; " in lost
    assert back == "the trainer takes rows again: 1 were kept, and 0 were dropped meanwhile"
    assert sink.failed_sends == 0


async def test_rows_that_are_lost_when_the_picker_ends_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    sink = TrainingSink("http://127.0.0.1:1", 10, 0.01, 1)
    task = asyncio.create_task(sink.run())
    await asyncio.sleep(0)
    for number in range(3):
        sink.add(ROWS[:, :1], ttft_ms=number)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.messages[-1] == "3 rows are lost: the picker ends, and has not sent them to the trainer"


async def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    sink = TrainingSink("http://127.0.0.1:1", 2, 0.01, 1)
    for number in range(5):
        sink.add(ROWS[:, :1], ttft_ms=number)
    assert (len(sink), sink.lost["full"]) == (2, 3)


async def test_rows_that_the_trainer_refuses_do_not_hold_up_the_rest() -> None:
    async def refuse_rows(request: web.Request) -> web.Response:
        return web.json_response({"detail": []}, status=422)

    async with server("/add_training_data_bulk", refuse_rows) as url:
        sink = TrainingSink(url, 10, 0.01, 1)
        sink.add(ROWS[:, :1], ttft_ms=1)
        task = asyncio.create_task(sink.run())
        await until(lambda: sink.lost["refused"] == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(sink) == 0


async def test_a_predictor_that_accepts_columns_gets_columns(tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish(pair(1.0))
    row = np.array([[0.5], [100], [2], [3], [4], [0.25], [0], [0], [0], [0], *[[np.nan]] * 4], np.float32)
    with running_predictor(tmp_path) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        predictions = await client.predict(np.repeat(row, 3, axis=1))
        await client.close()
        page = str(call(f"{url}/metrics")[1])
    assert predictions.ttft_ms.tolist() == [105.75] * 3
    assert predictions.tpot_ms.tolist() == [109.5] * 3
    assert (predictions.generation, predictions.source) == (1, "remote")
    assert 'nv_inference_count{model="ttft"} 3' in page


@pytest.mark.parametrize("has_median", [False, True])
async def test_both_clients_return_medians_if_the_models_have_them(tmp_path: Path, has_median: bool) -> None:
    open_store(str(tmp_path)).publish(pair(1.0, has_median=has_median))
    embedded = EmbeddedLatencyClient(str(tmp_path), 60.0)
    await embedded.start()
    with running_predictor(tmp_path) as url:
        remote = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        answers = await remote.predict(ROWS), embedded.predict(ROWS)
        await remote.close()
    await embedded.close()
    for predictions in answers:
        medians = predictions.ttft_median_ms, predictions.tpot_median_ms
        upper = predictions.ttft_ms, predictions.tpot_ms
        if not has_median:
            assert medians == (None, None)
            continue
        for median, value in zip(medians, upper, strict=True):
            assert median is not None
            np.testing.assert_allclose(median, value / 2)


async def test_an_older_predictor_with_fewer_features_gets_rows() -> None:
    asked: list[str] = []
    known = set(ROW_NAMES) - {"ms_since_token"}

    async def older(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.endswith("/strict"):
            return await answer(request)
        names = json.loads((await request.read()).partition(b"\n")[0])["features"]
        unknown = [name for name in names if name not in known]
        return web.json_response({"detail": f"{unknown[0]}: no such feature"}, status=400)

    async with server("/predict/{kind:.*}", older) as url:
        client = RemoteLatencyClient((url,), timeout_s=PATIENCE_S)
        for _ in range(2):
            assert (await client.predict(ROWS)).tpot_ms.tolist() == [0, 1, 2]
        await client.close()
    assert asked == ["/predict/columns", *["/predict/bulk/strict"] * 2]


@pytest.mark.parametrize(
    "text", [b"", b"{}\n" + bytes(24), b'{"generation":1}\n' + bytes(20), b'{"generation":1}\n' + b"\xff" * 24]
)
async def test_a_malformed_answer_in_columns_counts_as_a_failure(text: bytes) -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(body=text)

    async with server("/predict/columns", nonsense) as bad, predictor(answer) as good:
        client = RemoteLatencyClient((bad, good), timeout_s=PATIENCE_S)
        for _ in range(4):
            assert (await client.predict(ROWS)).generation == 4
        assert client.paused()[bad] == 1
        await client.close()


def test_no_prediction_server_closes_a_connection_that_a_picker_keeps_open() -> None:
    assert KEEP_ALIVE_S > KEEP_OPEN_S
