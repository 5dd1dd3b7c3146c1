"""The picker's clients trust only prediction and training servers certified by the right CA."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from cryptography import x509

from epp.exceptions import ConfigError, PredictionUnavailableError
from epp.prediction.remote import RemoteLatencyClient
from epp.prediction.training import TrainingSink
from epp.trust import Trust
from model_store import ROW_NAMES, open_store
from tests.epp.process import Stream, picker_process, token
from tests.live import PATIENCE_S, until
from tests.predictor.models import pair
from tests.serving.authority import Authority, server_context
from tests.serving.test_https import started

ROWS = np.zeros((len(ROW_NAMES), 3), dtype=np.float32)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """Run a server of both APIs with this folder's certificate. Yield its URL."""

    async def predict(request: web.Request) -> web.Response:
        rows = len((await request.json())["requests"])
        return web.json_response({"predictions": [{"ttft_ms": 1, "tpot_ms": 1}] * rows, "generation": 4})

    async def take(request: web.Request) -> web.Response:
        return web.json_response({}, status=202)

    app = web.Application()
    app.router.add_post("/predict/bulk/strict", predict)
    app.router.add_post("/add_training_data_bulk", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(folder)).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def predicted(url: str, trust: Trust) -> str:
    """Return why there was no prediction; empty when there was one."""
    client = RemoteLatencyClient((url,), 10, trust)
    try:
        await client.predict(ROWS)
    except PredictionUnavailableError as error:
        return str(error)
    finally:
        await client.close()
    return ""


async def test_a_server_certified_by_the_file_s_ca_is_trusted(tmp_path: Path) -> None:
    authority = Authority()
    async with served(authority.issue(tmp_path / "server")) as url:
        assert await predicted(url, Trust(authority.write_ca(tmp_path / "ca.crt"))) == ""


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another authority", "certificate verify failed"),
        ("the system's authorities", "certificate verify failed"),
        ("expired", "certificate has expired"),
        ("another host", "IP address mismatch"),
    ],
)
async def test_any_other_server_is_refused_with_the_reason(case: str, said: str, tmp_path: Path) -> None:
    authority = Authority()
    valid_for = timedelta(hours=-1) if case == "expired" else timedelta(days=1)
    names = (x509.DNSName("elsewhere"),) if case == "another host" else (x509.DNSName("localhost"),)
    folder = authority.issue(tmp_path / "server", valid_for, names)
    trusted = Authority() if case == "another authority" else authority
    trust = Trust("" if case.startswith("the system") else trusted.write_ca(tmp_path / "ca.crt"))
    async with served(folder) as url:
        asked = url if case == "another host" else url.replace("127.0.0.1", "localhost")
        reason = await predicted(asked, trust)
    assert said in reason
    assert asked in reason


async def test_rows_are_sent_only_to_a_trusted_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, other = Authority(), Authority()
    ca_file = tmp_path / "ca.crt"
    trust = Trust(other.write_ca(ca_file))
    async with served(authority.issue(tmp_path / "server")) as url:
        sink = TrainingSink(url, 10, 0.01, 10, trust)
        sink.add(ROWS[:, :1], ttft_ms=100.0)
        sending = asyncio.create_task(sink.run())
        async with asyncio.timeout(PATIENCE_S):
            while not sink.failed_sends:
                await asyncio.sleep(0.01)
            assert sink.sent == 0
            assert "certificate verify failed" in caplog.text
            # The file is corrected, and the queued rows are sent.
            authority.write_ca(ca_file)
            trust.refresh()
            while not sink.sent:
                await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_changed_ca_file_is_loaded_and_a_broken_one_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, ca_file = Authority("first"), Authority("second"), tmp_path / "ca.crt"
    trust = Trust(first.write_ca(ca_file))
    watching = asyncio.create_task(trust.watch(poll_s=0.01))
    async with served(first.issue(tmp_path / "1")) as old, served(second.issue(tmp_path / "2")) as new:
        before = trust.context
        second.write_ca(ca_file)
        async with asyncio.timeout(PATIENCE_S):
            while trust.context is before:
                await asyncio.sleep(0.01)
        assert await predicted(new, trust) == ""
        assert "certificate verify failed" in await predicted(old, trust)
        ca_file.write_text("no certificates")
        async with asyncio.timeout(PATIENCE_S):
            while "the old ones stay" not in caplog.text:
                await asyncio.sleep(0.01)
        assert await predicted(new, trust) == ""
    watching.cancel()


@pytest.mark.parametrize(("content", "said"), [(None, "can't read"), ("no", "holds no certificates in PEM")])
def test_an_unusable_ca_file_is_refused_at_the_start(content: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    if content:
        file.write_text(content)
    with pytest.raises(ConfigError, match=f"--latency-ca-file.*{said}|--latency-ca-file: {said} {file}"):
        Trust(str(file))


@pytest.mark.slow
def test_the_picker_reports_an_unusable_ca_file_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "epp", "--endpoints", "127.0.0.1:1", "--latency-ca-file", str(tmp_path / "none")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 1
    assert f"--latency-ca-file: can't read {tmp_path / 'none'}" in result.stderr.splitlines()[-1]


@pytest.mark.slow
async def test_a_picker_learns_and_predicts_over_tls(tmp_path: Path) -> None:
    """Picker, trainer and predictor as processes, with certificates of one authority."""
    authority = Authority()
    folder = authority.issue(tmp_path / "certificates")
    open_store(str(tmp_path / "store")).publish(pair(2.0))
    with started("trainer", tmp_path, folder) as trainer, started("predictor", tmp_path, folder) as predictor:
        until(lambda: trainer.is_answering(authority) and predictor.is_answering(authority))
        flags = ["--enable-latency-predictor", "--prediction-timeout", "10s", "--latency-flush-interval-sec", "0.05"]
        flags += ["--training-server-url", f"https://127.0.0.1:{trainer.port}"]
        flags += ["--prediction-server-url", f"https://127.0.0.1:{predictor.port}"]
        flags += ["--latency-ca-file", authority.write_ca(tmp_path / "ca.crt")]
        with picker_process(tmp_path, *flags) as picker:
            async with picker.channel() as channel:
                stream = Stream(channel)
                await stream.pick({"x-prediction-based-scheduling": "true"})
                await stream.respond(token("a"), token("b"), b"data: [DONE]\n\n")
                await stream.end()
            assert 'headroom_epp_decisions_total{profile="slo",source="remote"} 1.0' in picker.metrics()
            until(lambda: bool(re.search(r"^headroom_epp_training_rows_sent_total [1-9]", picker.metrics(), re.M)))
