"""Which certificates of prediction and training servers are believed."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from epp.exceptions import ConfigError
from serving.watched_file import file_stamp

logger = logging.getLogger("headroom.epp.trust")

_POLL_S: Final = 1.0


class Trust:
    """`context` is what aiohttp is told for new connections: to want a certificate of the host's name, by a known CA.

    Known are those of a PEM file, read again when it changes, or, without one, the system's (True). ConfigError when
    the file can't be used at the start.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._file = Path(ca_file) if ca_file else None
        self._seen = file_stamp(self._file) if self._file else None
        self.context = self._read()

    async def watch(self, poll_s: float = _POLL_S) -> None:
        """Follows the file for ever; Kubernetes turns a link to it when it replaces a mounted secret."""
        while self._file:
            await asyncio.sleep(poll_s)
            self.refresh()

    def refresh(self) -> None:
        """Takes a file that has changed: what it no longer names is no longer believed by new connections."""
        stamp = file_stamp(self._file) if self._file else None
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.context = self._read()
            logger.info("took the new CAs in %s", self._file)
        except ConfigError as error:
            logger.warning("%s; the old ones stay", error)

    def _read(self) -> ssl.SSLContext | bool:
        if not self._file:
            return True
        try:
            return ssl.create_default_context(cafile=self._file)
        except ssl.SSLError as error:
            raise ConfigError(f"--latency-ca-file: {self._file} holds no certificates in PEM: {error}") from error
        except OSError as error:
            raise ConfigError(f"--latency-ca-file: can't read {self._file}: {error.strerror}") from error
