"""What `headroom up` asks of clients, from its flags and the files that they name."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import click

from headroom.gateway.client_port import ClientPort
from headroom.servers.api_key import read_api_key

_MOST_PEM_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientFlags:
    """The flags. The files of certificate, key and API key may change; `read` reads them anew."""

    host: str
    tls_cert: Path | None
    tls_key: Path | None
    api_key_file: Path | None
    max_body_bytes: int
    timeout_s: float

    def read(self) -> ClientPort:
        """Raise a click.ClickException that says what is wrong with a file."""
        certificate, private_key = _pair(self.tls_cert, self.tls_key)
        return ClientPort(
            host=self.host,
            certificate=certificate,
            private_key=private_key,
            api_key=read_api_key(self.api_key_file),
            max_body_bytes=self.max_body_bytes,
            timeout_s=self.timeout_s,
        )


def _pair(certificate: Path | None, private_key: Path | None) -> tuple[bytes, bytes]:
    if certificate is None or private_key is None:
        return b"", b""
    try:
        # Envoy would only write into its log that the two don't belong together.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
        return _read(certificate), _read(private_key)
    except (OSError, ssl.SSLError) as error:
        raise click.ClickException(f"can't serve TLS with {certificate} and {private_key}: {error}") from error


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        text = opened.read(_MOST_PEM_BYTES + 1)
    if len(text) > _MOST_PEM_BYTES:
        raise OSError(f"{file} is larger than {_MOST_PEM_BYTES} bytes")
    return text
