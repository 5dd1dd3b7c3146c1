"""The predictor's life."""

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from model_store import StoreError
from predictor.app import application, create_repository
from predictor.config import Config
from predictor.connection import HeadTimeoutProtocol
from predictor.engine import Engine
from predictor.exceptions import StartError
from predictor.listener import listen
from predictor.repository import Repository
from predictor.shared_totals import SharedTotals
from predictor.workers import own_place
from serving.certificates import CertificateError, CertificateFolder, https_settings, open_certificates

logger = logging.getLogger("headroom.predictor")
GRACE_S = 10
# Longer than pickers keep a connection open that nothing is asked over: who asks over one that is just being closed
# gets no answer, and takes that for a failure.
KEEP_ALIVE_S = 75


def serve(config: Config) -> None:
    """Runs until SIGTERM or SIGINT. StartError when it can't start."""
    logger.info("starting with %s", config)
    engine = Engine()
    place = own_place()
    try:
        certificates = open_certificates(config.cert_path)
        repository = create_repository(config, engine)
    except (CertificateError, StoreError) as error:
        raise StartError(str(error)) from error
    listener = listen(config.host, config.port, is_shared=place is not None)
    # uvicorn stops at a signal, and then raises it once more for whoever was there before it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    settings = uvicorn.Config(
        application(config, engine, repository, SharedTotals(*place) if place else None),
        http=HeadTimeoutProtocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        date_header=False,
        **https_settings(certificates),
    )
    with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
        runner.run(_serve(config, engine, repository, uvicorn.Server(settings), listener, certificates))


async def _serve(
    config: Config,
    engine: Engine,
    repository: Repository,
    server: uvicorn.Server,
    listener: socket.socket,
    certificates: CertificateFolder | None,
) -> None:
    if config.grpc_port is None:
        await server.serve([listener])
        return
    from predictor.v2.grpc_front import grpc_serving

    async with grpc_serving(config, engine, repository, GRACE_S, certificates):
        await server.serve([listener])


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
