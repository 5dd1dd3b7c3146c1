"""Envoy's TLS to the model servers: by which CAs it verifies them, and for which names."""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any as AnyValue

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterTransportSocketMatch
from envoy_data_plane.envoy.config.core.v3 import TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    SdsSecretConfig,
    UpstreamTlsContext,
)
from envoy_data_plane.google.protobuf import Any, Struct

from headroom.files import replace_file
from headroom.gateway import clusters

_SECRET = "servers"  # noqa: S105 (the name of a resource)
# No server's certificate is for this address. Without any matcher, Envoy would accept every certificate of the CA.
_NO_SERVER = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """The files by which Envoy verifies servers with a name, and servers without one. It follows their changes.

    Envoy can compare a certificate with the name of just the server that it connects to, but not with its address.
    So a certificate of a server without a name may be for any of these servers' addresses.
    """

    by_name: Path
    by_address: Path

    def write(self, authorities: str, addresses: Sequence[str]) -> None:
        """Replace both files. `authorities` are certificates in PEM format."""
        trusted = {"trusted_ca": {"inline_string": authorities}}
        exact = [
            {"san_type": "IP_ADDRESS", "matcher": {"exact": one}} for one in (*map(_canonical, addresses), _NO_SERVER)
        ]
        replace_file(self.by_name, _secret(trusted))
        replace_file(self.by_address, _secret({**trusted, "match_typed_subject_alt_names": exact}))


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Without `trust`, any certificate is accepted."""

    trust: TrustFiles | None = None


def secure(pool: Cluster, tls: ServerTls) -> None:
    """Let Envoy speak TLS with the servers of the file of `clusters.discovered`, which says their names."""
    if tls.trust is None:
        pool.transport_socket = _socket(UpstreamTlsContext(auto_host_sni=True), None)
        return
    named = UpstreamTlsContext(auto_host_sni=True, auto_sni_san_validation=True)
    pool.transport_socket = _socket(named, tls.trust.by_name)
    pool.transport_socket_matches = [
        ClusterTransportSocketMatch(
            name="by address",
            match=Struct.from_dict(clusters.BY_ADDRESS),
            transport_socket=_socket(UpstreamTlsContext(), tls.trust.by_address),
        )
    ]


def _socket(context: UpstreamTlsContext, trusted: Path | None) -> TransportSocket:
    secret = SdsSecretConfig(name=_SECRET, sds_config=clusters.followed(trusted)) if trusted else None
    context.common_tls_context = CommonTlsContext(
        alpn_protocols=["http/1.1"], validation_context_sds_secret_config=secret
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def _canonical(address: str) -> str:
    """Return the address as Envoy writes the one of a certificate."""
    return str(ipaddress.ip_address(address))


def _secret(validation: Mapping[str, AnyValue]) -> str:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": _SECRET, "validation_context": validation}]})
