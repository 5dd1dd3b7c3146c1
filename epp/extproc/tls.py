"""Certificates for the ext_proc port: self-signed, or from a folder and reloaded when they change."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.exceptions import ConfigError
from serving.certificates import CertificateError, CertificateFolder, Pair, load_pair
from serving.watched_file import POLL_S

_LIFETIME: Final = timedelta(days=3650)
_DEFAULT_VERSION: Final = "VersionTLS12"
VERSIONS: Final = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}
# The TLS 1.2 suites that HTTP/2 allows (RFC 9113, 9.2.2): from Kubernetes' names to OpenSSL's.
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
    """A key and its certificate. `context` holds the newest usable pair, for new connections.

    `cert_path` is a folder of tls.crt and tls.key. If it is empty, a self-signed pair is made. `client_ca_file` has the
    CAs whose certificates clients must present; if it is empty, any client is admitted. Raise ConfigError when a file
    can't be used at the start, or a version or cipher suite is unknown.
    """

    def __init__(
        self,
        cert_path: str = "",
        min_version: str = _DEFAULT_VERSION,
        cipher_suites: str = "",
        client_ca_file: str = "",
    ) -> None:
        # True if neither versions nor suites are restricted. Only `context` can restrict them, not `pair`.
        self.unrestricted = min_version == _DEFAULT_VERSION and not cipher_suites
        self.context = _context(_version(min_version), _ciphers(cipher_suites))
        self.client_ca = _require_clients(self.context, client_ca_file) if client_ca_file else None
        self._folder, self._own = None, (b"", b"")
        if cert_path:
            try:
                self._folder = CertificateFolder(cert_path, self.context)
            except CertificateError as error:
                raise ConfigError(str(error)) from error
        else:
            self._own = self_signed()
            load_pair(self.context, self._own)

    @property
    def pair(self) -> Pair:
        return self._folder.pair if self._folder else self._own

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Reload the pair whenever the folder changes, until cancelled."""
        while self._folder:
            await asyncio.sleep(poll_s)
            self.refresh()

    def refresh(self) -> None:
        """Load a changed pair. If the new pair can't be used, log why and keep the old one."""
        if self._folder:
            self._folder.refresh()


def self_signed() -> Pair:
    """Return a new key and its certificate, in PEM. Gateways don't verify them; the pair only gives encryption."""
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
        raise ConfigError(f"--tls-min-version: {name!r} is unknown; use one of {', '.join(VERSIONS)}")
    return VERSIONS[name]


def _ciphers(names: str) -> str:
    """Return OpenSSL's list of the TLS 1.2 suites in `names`. The suites of TLS 1.3 can't be chosen."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(CIPHER_SUITES)
    if unknown := [name for name in wanted if name not in CIPHER_SUITES]:
        raise ConfigError(f"--tls-cipher-suites: {', '.join(unknown)} unknown; known are {', '.join(CIPHER_SUITES)}")
    return ":".join(CIPHER_SUITES[name] for name in wanted)


def _require_clients(context: ssl.SSLContext, ca_file: str) -> bytes:
    """Let the context admit only clients with a certificate of these CAs; return the CAs in PEM."""
    try:
        pem = Path(ca_file).read_bytes()
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"--client-ca-file: {ca_file} holds no certificates in PEM: {error}") from error
    except OSError as error:
        raise ConfigError(f"--client-ca-file: can't read {ca_file}: {error.strerror}") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return pem


def _context(min_version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = min_version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2"])
    return context
