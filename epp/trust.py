"""The CAs that certify the servers that the picker calls."""

import asyncio
import logging
import ssl
from pathlib import Path

from epp.exceptions import ConfigError
from serving.watched_file import POLL_S, file_stamp

logger = logging.getLogger("headroom.epp.trust")


class Trust:
    """Verifies servers by the CAs of a PEM file, which is read again when it changes, or by the system's CAs.

    `context` is the `ssl` argument of aiohttp for new connections: True without a file. The server's certificate must
    name the host. `flag` names the file in errors. ConfigError when the file can't be used at the start.
    """

    def __init__(self, ca_file: str = "", flag: str = "--latency-ca-file") -> None:
        self._flag = flag
        self._file = Path(ca_file) if ca_file else None
        self._seen = file_stamp(self._file) if self._file else None
        self.context = self._read()

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Follow the file for ever; Kubernetes moves a symbolic link when it replaces a mounted secret."""
        while self._file:
            await asyncio.sleep(poll_s)
            self.refresh()

    def refresh(self) -> None:
        """Read the file if it has changed. New connections no longer trust CAs that the file no longer holds."""
        stamp = file_stamp(self._file) if self._file else None
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.context = self._read()
            logger.info("loaded the new CAs in %s", self._file)
        except ConfigError as error:
            logger.warning("%s; the old ones stay", error)

    def _read(self) -> ssl.SSLContext | bool:
        if not self._file:
            return True
        try:
            return ssl.create_default_context(cafile=self._file)
        except ssl.SSLError as error:
            raise ConfigError(f"{self._flag}: {self._file} holds no certificates in PEM: {error}") from error
        except OSError as error:
            raise ConfigError(f"{self._flag}: can't read {self._file}: {error.strerror}") from error
