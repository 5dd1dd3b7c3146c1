"""Envoy's port for clients: where it is, what it asks of them, and how much it lets them ask for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

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
_WRONG_KEY = {
    "message": "this address asks for an API key: authorization: Bearer KEY",
    "type": "invalid_request_error",
    "code": "invalid_api_key",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPort:
    """`certificate` and `private_key` are PEM texts; without them, clients speak plain HTTP.

    With `api_key`, requests need the header `authorization: Bearer KEY`. A body of more than `max_body_bytes` is
    refused. An answer that takes longer than `timeout_s` is ended; 0 is no limit.
    """

    host: str = "127.0.0.1"
    certificate: bytes = b""
    private_key: bytes = b""
    api_key: str = ""
    max_body_bytes: int = 32 << 20
    timeout_s: float = 0.0


def transport_socket(port: ClientPort) -> TransportSocket | None:
    """Return the TLS of a port; None for plain HTTP."""
    if not port.certificate:
        return None
    pair = TlsCertificate(
        certificate_chain=DataSource(inline_bytes=port.certificate),
        private_key=DataSource(inline_bytes=port.private_key),
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
    """Return the rules that give clients OpenAI's errors as JSON where Envoy itself refuses or ends a request."""
    large = f"the body is larger than {port.max_body_bytes} bytes"
    late = f"the answer took longer than {port.timeout_s:g} s"
    rules = [_rule("response.code == 413", {"message": large, "type": "PayloadTooLargeError", "code": 413})]
    if port.timeout_s:
        # Envoy's name for an answer that the route's timeout ended.
        is_late = 'response.code_details.startsWith("response_timeout")'
        rules.append(_rule(is_late, {"message": late, "type": "GatewayTimeoutError", "code": 504}))
    if port.api_key:
        rules.append(_rule("response.code == 401", _WRONG_KEY))
    return rules


def _rule(expression: str, error: Mapping[str, str | int]) -> ResponseMapper:
    return ResponseMapper(
        filter=replies(expression),
        body=DataSource(inline_string=json.dumps({"error": {**error, "param": None}})),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"), content_type="application/json"
        ),
    )
