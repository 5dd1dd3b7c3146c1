"""Tests of trainer and predictor processes that ask for a bearer token, by HTTP and by gRPC."""

import asyncio
import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from epp.exceptions import PredictionUnavailableError
from epp.prediction.remote import RemoteLatencyClient
from epp.prediction.training import TrainingSink
from headroom.processes.ports import free_port
from model_store import ROW_NAMES, open_store
from predictor.protocol import inference_pb2 as pb
from serving.bearer_auth import warn_if_open
from serving.listening import Address
from serving.token_file import TokenFile
from tests.live import PATIENCE_S, until
from tests.predictor.models import pair

pytestmark = pytest.mark.slow

SERVICE = "inference.GRPCInferenceService"
TOKEN = {"authorization": "Bearer new"}
OLD_TOKEN = {"authorization": "Bearer old"}
ROWS = np.zeros((len(ROW_NAMES), 3), dtype=np.float32)


@dataclass(frozen=True)
class Servers:
    """A trainer and a predictor with one file of tokens."""

    trainer: str
    predictor: str
    grpc_address: str
    tokens: Path

    def rpc(self, method: str, token: dict[str, str], body: bytes = b"") -> grpc.StatusCode:
        with grpc.insecure_channel(self.grpc_address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/{method}")
            code: grpc.StatusCode = ask.future(body, timeout=PATIENCE_S, metadata=tuple(token.items())).code()
            return code


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "tokens").write_text("new\nold\n")
    open_store(str(folder / "store")).publish(pair(2.0))
    ports = [free_port() for _ in range(3)]
    shared = ["--host", "127.0.0.1", "--model-store", str(folder / "store"), "--token-file", str(folder / "tokens")]
    found = Servers(
        f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[2]}", folder / "tokens"
    )
    with (
        run("trainer", *shared, "--port", str(ports[0])),
        run("predictor", *shared, "--port", str(ports[1]), "--grpc-port", str(ports[2])),
    ):
        until(lambda: status(f"{found.trainer}/healthz") == 200)
        until(lambda: status(f"{found.predictor}/readyz") == 200)
        yield found


@contextmanager
def run(module: str, *flags: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", module, *flags]) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0


def status(url: str, token: dict[str, str] | None = None, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, body, token or {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


TRAINER_PATHS = ("/", "/data/status", "/data/quarantine", "/models/list", "/model/ttft/download", "/model/export")
PREDICTOR_PATHS = ("/", "/status", "/v1", "/v2", "/v2/models/ttft", "/docs", "/openapi.json", "/nowhere")


def test_a_caller_without_a_token_gets_401_from_every_path(servers: Servers) -> None:
    urls = [servers.trainer + path for path in TRAINER_PATHS] + [servers.predictor + path for path in PREDICTOR_PATHS]
    assert {status(url) for url in urls} == {status(url, {"authorization": "Bearer wrong"}) for url in urls} == {401}
    posts = ("/add_training_data_bulk", "/flush", "/predict")
    assert {status(servers.trainer + path, body=b"{}") for path in posts} == {401}
    questions = ("/predict", "/predict/bulk/strict", "/predict/columns", "/reload", "/v2/models/ttft/infer", "/v1/ttft")
    assert {status(servers.predictor + path, body=b"{}") for path in questions} == {401}


def test_the_refusal_says_what_to_send(servers: Servers) -> None:
    for url, key in ((servers.trainer, "detail"), (servers.predictor, "error")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=PATIENCE_S)  # noqa: S310
        assert refused.value.headers["www-authenticate"] == "Bearer"
        assert "authorization: Bearer TOKEN" in json.load(refused.value)[key]


def test_probes_and_metrics_need_no_token(servers: Servers) -> None:
    assert {status(servers.trainer + path) for path in ("/healthz", "/metrics")} == {200}
    assert status(f"{servers.trainer}/readyz") in (200, 503)
    paths = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
    assert {status(servers.predictor + path) for path in paths} == {200}
    assert {servers.rpc(method, {}) for method in ("ServerLive", "ServerReady")} == {grpc.StatusCode.OK}


@pytest.mark.parametrize("token", [TOKEN, OLD_TOKEN], ids=["new", "old"])
def test_a_caller_with_a_token_is_served(token: dict[str, str], servers: Servers) -> None:
    assert status(f"{servers.trainer}/data/status", token) == status(f"{servers.predictor}/status", token) == 200
    name = pb.ModelMetadataRequest(name="ttft").SerializeToString()
    assert servers.rpc("ModelMetadata", token, name) == grpc.StatusCode.OK


def test_grpc_refuses_calls_and_streams_without_a_token(servers: Servers) -> None:
    methods = ("ServerMetadata", "RepositoryModelLoad", "ModelInfer", "Unknown")
    refusals = {servers.rpc(method, token) for method in methods for token in ({}, {"authorization": "Bearer x"})}
    assert refusals == {grpc.StatusCode.UNAUTHENTICATED}
    with grpc.insecure_channel(servers.grpc_address) as channel:
        answers = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(()), timeout=PATIENCE_S)
        assert answers.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_the_picker_sends_its_token(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    token = TokenFile(tmp_path / "token", poll_s=0)
    client = RemoteLatencyClient((servers.predictor,), PATIENCE_S, token=token)
    sink = TrainingSink(servers.trainer, 10, 1, PATIENCE_S, token=token)
    try:
        with pytest.raises(PredictionUnavailableError, match=r"status 401: .*a bearer token is needed"):
            await client.predict(ROWS)
        sink.add(ROWS[:, :1], ttft_ms=100.0)
        await flush(sink)
        # The rows wait for the right token.
        assert (sink.sent, sink.lost["refused"], len(sink)) == (0, 0, 1)
        (tmp_path / "token").write_text("old")
        await flush(sink)
        assert sink.sent == 1
    finally:
        await client.close()
    # Another client, because a replica that refused is asked again only after a pause.
    client = RemoteLatencyClient((servers.predictor,), PATIENCE_S, token=token)
    try:
        await client.predict(ROWS)
    finally:
        await client.close()


async def flush(sink: TrainingSink) -> None:
    sending = asyncio.create_task(sink.run())
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "127.0.0.1", "::1", "localhost"])
def test_a_server_that_others_reach_warns(host: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_open(Address(host, 8000), logging.getLogger())
    assert ("asks callers for no token" in caplog.text) == (host in ("0.0.0.0", "10.0.0.1", "::"))
