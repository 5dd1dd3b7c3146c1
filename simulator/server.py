"""The life of one simulated server."""

import logging
from typing import Final

from serving.life import live
from serving.listening import Address, listen
from serving.web import WebServer
from simulator.app import create_app
from simulator.config import Config

logger = logging.getLogger("headroom.simulator")

_GRACE_S: Final = 2  # that requests have to finish at the end


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT. StartError when the port is taken."""
    logger.info("starting with %s", config)
    app = create_app(config)
    live(WebServer(app, listen(Address(config.host, config.port)), grace_s=_GRACE_S))
