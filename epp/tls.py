"""Certificates for the ext_proc port."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.exceptions import ConfigError

_LIFETIME = timedelta(days=3650)


def server_credentials(cert_path: str) -> grpc.ServerCredentials:
    """From a folder of tls.crt and tls.key, or self-signed when no folder is given."""
    key, certificate = _from_folder(Path(cert_path)) if cert_path else self_signed()
    return grpc.ssl_server_credentials([(key, certificate)])


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


def _from_folder(folder: Path) -> tuple[bytes, bytes]:
    try:
        return (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    except OSError as error:
        raise ConfigError(f"--cert-path: can't read {error.filename}: {error.strerror}") from error
