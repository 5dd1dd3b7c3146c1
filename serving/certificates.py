"""A server's key and certificate, from a folder, read again when they change."""

import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from serving.exceptions import StartError
from serving.watched_file import Stamp, file_stamp

logger = logging.getLogger("headroom.certificates")

# A key and its certificate, in PEM.
Pair = tuple[bytes, bytes]
POLL_S: Final = 1
_FILES: Final = ("tls.key", "tls.crt")


class CertificateError(StartError):
    """A folder holds no key with its certificate that could be used; the text names the flag, and says why."""


class CertificateFolder:
    """The tls.key and tls.crt of a folder, as Kubernetes mounts a secret, which it replaces by turning one link.

    `context` always holds the newest pair that could be used, for new connections, and `pair` is that pair.
    CertificateError when there is none at the start.
    """

    def __init__(self, folder: str, context: ssl.SSLContext) -> None:
        self._folder = Path(folder)
        self._seen = self._stamps()
        self.context = context
        self.pair = self._read()
        try:
            load_pair(context, self.pair)
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(
                f"--cert-path: {folder} has no usable pair of tls.crt and tls.key: {error}"
            ) from error

    def refresh(self) -> None:
        """Takes a pair that has changed. If it is of no use, the log says so and the old one stays."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            pair = self._read()
            # A key that doesn't fit would spoil the context that serves.
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
            load_pair(self.context, pair)
        except (CertificateError, ssl.SSLError, ValueError) as error:
            logger.warning(
                "the certificate in %s has changed and can't be used, so the old one stays: %s", self._folder, error
            )
        else:
            self.pair = pair
            logger.info("took the new certificate in %s", self._folder)
        self._seen = stamps

    def _read(self) -> Pair:
        try:
            key, certificate = ((self._folder / name).read_bytes() for name in _FILES)
        except OSError as error:
            raise CertificateError(f"--cert-path: can't read {error.filename}: {error.strerror}") from error
        return key, certificate

    def _stamps(self) -> list[Stamp | None]:
        return [file_stamp(self._folder / name) for name in _FILES]


def open_certificates(folder: str) -> CertificateFolder | None:
    """None where no folder is named, and so no TLS is wanted. CertificateError."""
    return CertificateFolder(folder, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) if folder else None


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """ssl.SSLError or ValueError when the two don't make a pair. Python's ssl takes nothing but files."""
    key, certificate = pair
    with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
        context.load_cert_chain(certificate_file, key_file, _no_password)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A file of this content; on Linux in memory, so that no key goes to a disk and none has to be writable."""
    if sys.platform == "linux":
        with open(os.memfd_create("pem"), "wb", buffering=0) as file:
            file.write(content)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name


def _no_password() -> str:
    """Asked for when the key is encrypted, in whose stead OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted")
