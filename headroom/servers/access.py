"""How commands reach model servers: with which API key, and by which CAs they verify certificates."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import click

from headroom.servers.api_key import read_api_key

CA_FLAG, INSECURE_FLAG, KEY_FLAG = "--server-ca-file", "--server-insecure", "--server-key-file"
# OpenSSL's names of files in a folder of CAs: the hash of a subject, and a number.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerAccess:
    """The flags. Without a CA file, the system's CAs count; with `accepts_any`, any certificate does.

    The methods read the files anew, and raise a click.ClickException that says what is wrong with one. Flags that
    contradict each other raise a click.UsageError.
    """

    key_file: Path | None = None
    ca_file: Path | None = None
    accepts_any: bool = False

    def __post_init__(self) -> None:
        if self.ca_file and self.accepts_any:
            raise click.UsageError(f"{INSECURE_FLAG} accepts any certificate: leave it out, or {CA_FLAG}")

    def api_key(self) -> str:
        return read_api_key(self.key_file)

    def context(self) -> ssl.SSLContext:
        """Return the TLS of a client."""
        if self.accepts_any:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise click.ClickException(f"can't read the certificates in {self.ca_file}: {error}") from error

    def authorities(self) -> str:
        """Return the trusted CAs in PEM format, for Envoy, which doesn't know the system's."""
        context = self.context()
        if self.ca_file:
            return self.ca_file.read_text(errors="ignore")
        found = "".join(ssl.DER_cert_to_PEM_cert(one) for one in context.get_ca_certs(binary_form=True))
        # Some systems have a folder of CAs only, from which OpenSSL loads each at its first use.
        found = found or _folder_of_authorities(ssl.get_default_verify_paths().capath)
        if not found:
            raise click.ClickException(
                f"this machine has no CA certificates: {CA_FLAG} names a file of the servers' CA"
            )
        return found


def _folder_of_authorities(folder: str | None) -> str:
    files = [file for file in sorted(Path(folder).iterdir()) if _HASHED.fullmatch(file.name)] if folder else []
    # Links may point to files that are gone.
    return "".join(file.read_text(errors="ignore") for file in files if file.is_file())
