"""The trainer's process: its HTTP server from start to end."""

import logging
from typing import Final

from serving.bearer_auth import OPEN_PATHS, guarded, warn_if_open
from serving.certificates import open_certificates
from serving.life import live
from serving.listening import Address, listen
from serving.token_file import open_tokens
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
    address = Address(config.host, config.port)
    tokens = open_tokens(config.token_file)
    if not tokens:
        warn_if_open(address, logger)
    app = guarded(create_app(config), tokens, OPEN_PATHS, "detail")
    live(WebServer(app, listen(address), certificates, grace_s=_GRACE_S))
