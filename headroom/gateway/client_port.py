"""Envoy's port for clients: where it is, and what it asks of them."""

from dataclasses import dataclass
from pathlib import Path

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    SubstitutionFormatString,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.http.api_key_auth.v3 import ApiKeyAuth, Credential, KeySource
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter, ResponseMapper
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    TlsCertificate,
)
from envoy_data_plane.google.protobuf import Any

# As OpenAI answers, so that clients' libraries raise their error of a wrong key.
_REFUSAL = (
    '{"error": {"message": "this address asks for an API key: authorization: Bearer KEY", '
    '"type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPort:
    """`certificate` and `private_key` are PEM files; without them, clients speak plain HTTP.

    With `api_key`, requests need the header `authorization: Bearer KEY`.
    """

    host: str = "127.0.0.1"
    certificate: Path | None = None
    private_key: Path | None = None
    api_key: str = ""


def transport_socket(port: ClientPort) -> TransportSocket | None:
    """Return the TLS of a port; None for plain HTTP."""
    if port.certificate is None or port.private_key is None:
        return None
    pair = TlsCertificate(
        certificate_chain=DataSource(filename=str(port.certificate)),
        private_key=DataSource(filename=str(port.private_key)),
    )
    context = CommonTlsContext(tls_certificates=[pair], alpn_protocols=["h2", "http/1.1"])
    tls = DownstreamTlsContext(common_tls_context=context)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(tls))


def key_filters(port: ClientPort) -> list[HttpFilter]:
    """Return the filters that let only clients with the key pass. The key is passed on, for servers that ask for it."""
    if not port.api_key:
        return []
    auth = ApiKeyAuth(
        credentials=[Credential(key=port.api_key, client="client")], key_sources=[KeySource(header="authorization")]
    )
    return [HttpFilter(name="envoy.filters.http.api_key_auth", typed_config=Any.pack(auth))]


def replies(expression: str) -> AccessLogFilter:
    """Return the filter of those answers of Envoy's own for which a CEL expression is true."""
    extension = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=Any.pack(ExpressionFilter(expression=expression)),
    )
    return AccessLogFilter(extension_filter=extension)


def refusals(port: ClientPort) -> list[ResponseMapper]:
    """Return the rule that gives a client without the key OpenAI's error as JSON."""
    if not port.api_key:
        return []
    return [
        ResponseMapper(
            filter=replies("response.code == 401"),
            body=DataSource(inline_string=_REFUSAL),
            body_format_override=SubstitutionFormatString(
                text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"), content_type="application/json"
            ),
        )
    ]
