"""The predictor's process: its HTTP and gRPC servers from start to end."""

import logging
from contextlib import AsyncExitStack
from typing import Final

from predictor.app import application, create_repository
from predictor.config import Config
from predictor.engine import Engine
from predictor.workers import shared_totals
from serving.bearer_auth import OPEN_PATHS, guarded, warn_if_open
from serving.certificates import open_certificates
from serving.life import Signals, live
from serving.listening import Address, listen
from serving.token_file import open_tokens
from serving.web import WebServer
from serving.workers import own_place

logger = logging.getLogger("headroom.predictor")

# The paths of the Open Inference Protocol that need no token, as other probes.
_OPEN_PATHS: Final = OPEN_PATHS | {"/v2/health/live", "/v2/health/ready"}
# Seconds that open requests have to finish at the end.
_GRACE_S: Final = 10
# Seconds that an idle connection stays open. Pickers keep one for less time: a request on a connection that is just
# being closed would get no answer, and the picker would count a failure.
KEEP_ALIVE_S: Final = 75


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT; raise StartError or StoreError if the predictor can't start."""
    logger.info("starting with %s", config)
    live(PredictorServer(config))


class PredictorServer:
    """The HTTP server, and the gRPC server if the configuration has a port for it, with the same models."""

    def __init__(self, config: Config) -> None:
        place = own_place("predictor")
        self._config = config
        self._is_shared = place is not None
        self._certificates = open_certificates(config.cert_path)
        address = Address(config.host, config.port, self._is_shared)
        self._tokens = open_tokens(config.token_file)
        if not self._tokens and (place is None or place.is_first):
            warn_if_open(address, logger)
        self._engine = Engine()
        self._repository = create_repository(config, self._engine)
        app = application(config, self._engine, self._repository, shared_totals(place) if place else None)
        self._web = WebServer(
            guarded(app, self._tokens, _OPEN_PATHS, "error"),
            listen(address),
            self._certificates,
            grace_s=_GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            server_header=False,
            date_header=False,
        )
        self._grpc = AsyncExitStack()

    async def start(self) -> None:
        if self._config.grpc_port is not None:
            # Imported only if needed: grpcio takes memory.
            from predictor.v2.grpc_front import grpc_serving

            serving = grpc_serving(
                Address(self._config.host, self._config.grpc_port, self._is_shared),
                self._engine,
                self._repository,
                self._certificates,
                self._tokens,
                max_body_bytes=self._config.max_body_bytes,
                grace_s=_GRACE_S,
            )
            await self._grpc.enter_async_context(serving)
        await self._web.start()

    async def run(self) -> None:
        await self._web.run()

    async def end(self, signals: Signals) -> None:
        await self._web.end(signals)
        await self._grpc.aclose()
