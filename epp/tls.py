"""Certificates for the ext_proc port: self-signed, or from a folder and read again when they change."""

import asyncio
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.exceptions import ConfigError

logger = logging.getLogger("headroom.epp.tls")

_LIFETIME: Final = timedelta(days=3650)
_POLL_S: Final = 5.0
_DEFAULT_VERSION: Final = "VersionTLS12"
VERSIONS: Final = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}
# What HTTP/2 allows under TLS 1.2 (RFC 9113, 9.2.2), by the names that Kubernetes' components take, and OpenSSL's.
CIPHER_SUITES: Final = {
    f"TLS_ECDHE_{key}_WITH_{theirs}": f"ECDHE-{key}-{ours}"
    for theirs, ours in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
    for key in ("ECDSA", "RSA")
}


class Certificates:
    """A key and its certificate. `context` always holds the newest that could be used, for new connections.

    `cert_path` is a folder of tls.crt and tls.key; when empty, a self-signed pair is made. ConfigError when they can't
    be used at the start, or a version or cipher suite is unknown.
    """

    def __init__(self, cert_path: str = "", min_version: str = _DEFAULT_VERSION, cipher_suites: str = "") -> None:
        self._folder = Path(cert_path) if cert_path else None
        self._seen = self._signature()
        self.pair = self._read()
        # Whether neither version nor suites are restricted, which only the context knows to do.
        self.unrestricted = min_version == _DEFAULT_VERSION and not cipher_suites
        self.context = _context(_version(min_version), _ciphers(cipher_suites))
        try:
            _load(self.context, self.pair)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"--cert-path: {cert_path} has no usable pair of tls.crt and tls.key: {error}") from error

    async def watch(self, poll_s: float = _POLL_S) -> None:
        """Follows the folder for ever. Kubernetes replaces a mounted secret by turning one symbolic link."""
        while self._folder:
            await asyncio.sleep(poll_s)
            self.refresh()

    def refresh(self) -> None:
        """Takes a pair that has changed. If it is of no use, the log says so and the old one stays."""
        signature = self._signature()
        if signature == self._seen:
            return
        try:
            pair = self._read()
            # A key that doesn't fit would spoil the context that serves.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
            _load(self.context, pair)
        except (ConfigError, ssl.SSLError, ValueError) as error:
            logger.warning(
                "the certificate in %s has changed and can't be used, so the old one stays: %s", self._folder, error
            )
        else:
            self.pair = pair
            logger.info("took the new certificate in %s", self._folder)
        self._seen = signature

    def _read(self) -> tuple[bytes, bytes]:
        if not self._folder:
            return self_signed()
        try:
            return (self._folder / "tls.key").read_bytes(), (self._folder / "tls.crt").read_bytes()
        except OSError as error:
            raise ConfigError(f"--cert-path: can't read {error.filename}: {error.strerror}") from error

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever a file does; empty when one is missing."""
        if not self._folder:
            return ()
        try:
            stats = [os.stat(self._folder / name) for name in ("tls.key", "tls.crt")]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def self_signed() -> tuple[bytes, bytes]:
    """A new key and its certificate, in PEM. Gateways don't verify it: what it gives is encryption."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Headroom")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _version(name: str) -> ssl.TLSVersion:
    if name not in VERSIONS:
        raise ConfigError(f"--tls-min-version: {name!r} is unknown; take one of {', '.join(VERSIONS)}")
    return VERSIONS[name]


def _ciphers(names: str) -> str:
    """The suites of TLS 1.2, by commas; those of TLS 1.3 are not for choosing."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(CIPHER_SUITES)
    if unknown := [name for name in wanted if name not in CIPHER_SUITES]:
        raise ConfigError(f"--tls-cipher-suites: {', '.join(unknown)} unknown; known are {', '.join(CIPHER_SUITES)}")
    return ":".join(CIPHER_SUITES[name] for name in wanted)


def _context(min_version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = min_version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2"])
    return context


def _load(context: ssl.SSLContext, pair: tuple[bytes, bytes]) -> None:
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
