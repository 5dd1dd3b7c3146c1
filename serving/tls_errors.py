"""Say in words why a client refuses a server's TLS, and what to do about it."""

import ssl
from typing import Final

# OpenSSL's codes of verification: X509_V_ERR_*.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = 62
_OTHER_ADDRESS: Final = 64
# OpenSSL's reasons when a server's first bytes are no TLS. They vary with its version.
_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}


def describe_tls_error(error: ssl.SSLError, ca_flag: str) -> str:
    """Return what is wrong with the server. `ca_flag` is the flag that names a file of CAs."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_problem(error, ca_flag)
    if error.reason in _NO_TLS:
        return "it doesn't speak TLS: expected http, or another port"
    return f"the TLS handshake failed: {(error.reason or str(error)).replace('_', ' ').lower()}"


def _certificate_problem(error: ssl.SSLCertVerificationError, ca_flag: str) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "its certificate has expired: renew it on the server"
        case code if code == _NOT_YET_VALID:
            return "its certificate isn't valid yet: compare the clocks of both machines"
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            # The text names the name that was expected.
            return f"its certificate is for another name: {error.verify_message.rstrip('.')}"
    return f"its certificate isn't trusted ({error.verify_message}): {ca_flag} names the file of its CA"
