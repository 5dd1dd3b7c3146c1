"""Certificates for grpcio's servers. The module is separate, because not every server's image has grpcio."""

from typing import Protocol

import grpc

from serving.certificates import Pair


class Certificates(Protocol):
    """A source of certificates. `pair` is the newest one, and another object whenever it has changed."""

    @property
    def pair(self) -> Pair: ...


def grpc_credentials(certificates: Certificates, client_ca: bytes | None = None) -> grpc.ServerCredentials:
    """Return credentials that use the newest certificate at every handshake.

    With `client_ca` (PEM), clients must present a certificate of one of these CAs.
    """
    given = certificates.pair

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.pair is given:
            return None
        given = certificates.pair
        return grpc.ssl_server_certificate_configuration([given], client_ca)

    first = grpc.ssl_server_certificate_configuration([given], client_ca)
    return grpc.dynamic_ssl_server_credentials(first, newest, require_client_authentication=client_ca is not None)
