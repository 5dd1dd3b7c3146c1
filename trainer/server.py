"""The trainer's life."""

import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from model_store import StoreError
from serving.certificates import CertificateError, https_settings, open_certificates
from trainer.app import create_app
from trainer.config import Config
from trainer.exceptions import StartError

logger = logging.getLogger("headroom.trainer")


def serve(config: Config) -> None:
    """Runs until SIGTERM or SIGINT. StartError when it can't start."""
    logger.info("starting with %s", config)
    try:
        certificates = open_certificates(config.cert_path)
        app = create_app(config)
        listener = socket.create_server((config.host, config.port), backlog=1024)
    except (CertificateError, StoreError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"can't listen on {config.host}:{config.port}: {error.strerror}") from error
    # uvicorn stops at a signal, and then raises it once more for whoever was there before it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    settings = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
        **https_settings(certificates),
    )
    uvicorn.Server(settings).run([listener])


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
