"""Certificates for grpcio's servers. The module is separate, because not every server's image has grpcio."""

from typing import Protocol

import grpc

from serving.certificates import Pair


class Certificates(Protocol):
    """A source of certificates. `pair` is the newest one, and another object whenever it has changed."""

    @property
    def pair(self) -> Pair: ...


def grpc_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials that use the newest certificate at every handshake."""
    given = certificates.pair

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.pair is given:
            return None
        given = certificates.pair
        return grpc.ssl_server_certificate_configuration([given])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([given]), newest)
