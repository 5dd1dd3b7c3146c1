"""A server's key and certificate, read from a folder and reloaded when they change."""

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
_FILES: Final = ("tls.key", "tls.crt")


class CertificateError(StartError):
    """A folder has no usable pair of key and certificate; the text names the flag and the reason."""


class CertificateFolder:
    """The tls.key and tls.crt of a folder. Kubernetes mounts a secret so, and replaces it by changing one link.

    `pair` is the newest usable pair, and `context` serves it to new connections. The constructor raises
    CertificateError if there is none.
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
        """Load the pair if it has changed. If the new pair is unusable, log a warning and keep the old one."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            pair = self._read()
            # Try the pair in another context first: a key that doesn't match would break the one that serves.
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
            load_pair(self.context, pair)
        except (CertificateError, ssl.SSLError, ValueError) as error:
            logger.warning(
                "the certificate in %s has changed but can't be used; the old one stays: %s", self._folder, error
            )
        else:
            self.pair = pair
            logger.info("loaded the new certificate in %s", self._folder)
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
    """Open the certificates of a folder; return None if no folder is named. Raise CertificateError."""
    return CertificateFolder(folder, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) if folder else None


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Load a pair into a context; raise ssl.SSLError or ValueError if key and certificate don't match."""
    # Python's ssl loads certificates only from files.
    key, certificate = pair
    with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
        context.load_cert_chain(certificate_file, key_file, _no_password)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file with this content. On Linux it is in memory: no key reaches a disk."""
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
    """Refuse to give a password for an encrypted key; without this callback OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")
