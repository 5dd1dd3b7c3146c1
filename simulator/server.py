"""The simulated server's process: listen, serve, stop at a signal."""

import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from simulator.app import create_app
from simulator.config import Config
from simulator.exceptions import StartError

logger = logging.getLogger("headroom.simulator")


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raise StartError if the server can't listen on its port."""
    logger.info("starting with %s", config)
    try:
        listener = socket.create_server((config.host, config.port), backlog=1024)
    except OSError as error:
        raise StartError(f"can't listen on {config.host}:{config.port}: {error.strerror}") from error
    # uvicorn stops at a signal and then raises the signal again for the handler that was set before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    settings = uvicorn.Config(
        create_app(config), log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(settings).run([listener])


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
