"""The same certificates for grpcio's servers. Apart from the rest, since not every server's image has grpcio."""

from typing import Protocol

import grpc

from serving.certificates import Pair


class Certificates(Protocol):
    """`pair` is the newest one; another object whenever it has changed."""

    @property
    def pair(self) -> Pair: ...


def grpc_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Asked for a new certificate at every handshake."""
    given = certificates.pair

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.pair is given:
            return None
        given = certificates.pair
        return grpc.ssl_server_certificate_configuration([given])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([given]), newest)
