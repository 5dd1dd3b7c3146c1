"""The trainer's process: its HTTP server from start to end."""

import logging
from typing import Final

from serving.certificates import open_certificates
from serving.life import live
from serving.listening import Address, listen
from serving.web import WebServer
from trainer.app import create_app
from trainer.config import Config

logger = logging.getLogger("headroom.trainer")

# Seconds that open requests have to finish at the end.
_GRACE_S: Final = 10


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT; raise StartError or StoreError if the trainer can't start."""
    logger.info("starting with %s", config)
    certificates = open_certificates(config.cert_path)
    app = create_app(config)
    live(WebServer(app, listen(Address(config.host, config.port)), certificates, grace_s=_GRACE_S))
