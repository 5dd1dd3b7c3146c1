"""How the picker reaches metrics pages: over TLS or not, by which CAs, and with which token."""

import logging
import ssl

from epp.trust import Trust
from serving.token_file import TokenFile
from serving.watched_file import POLL_S

logger = logging.getLogger("headroom.epp.scrape")

CA_FLAG, TOKEN_FLAG = "--model-server-metrics-ca-file", "--model-server-metrics-token-file"


class PageAccess:
    """`tls` is None for plain HTTP. `authorization` is the value of that header, or empty.

    A CA file makes certificates count even without `verify_tls`. The constructor raises ConfigError or TokenError for
    a file that can't be used.
    """

    def __init__(
        self, scheme: str = "http", *, verify_tls: bool = False, ca_file: str = "", token_file: str = ""
    ) -> None:
        self.scheme = scheme
        self._verifies = verify_tls or bool(ca_file)
        self._trust = Trust(ca_file, CA_FLAG)
        self._token = TokenFile(token_file, TOKEN_FLAG) if token_file else None
        self._next_check = 0.0
        self._read()
        if scheme == "http" and ca_file:
            logger.warning("%s has no effect: --model-server-metrics-scheme is http", CA_FLAG)
        if scheme == "https" and token_file and not self._verifies:
            logger.warning("the token goes to servers whose certificates aren't verified: %s verifies them", CA_FLAG)

    def refresh(self, now: float) -> bool:
        """Read the files again if they have changed. Return whether new requests differ from those before.

        `now` is a time of the monotonic clock.
        """
        if now < self._next_check:
            return False
        self._next_check = now + POLL_S
        before = self.authorization, self._trust.context
        self._trust.refresh()
        if (self._newest_authorization(), self._trust.context) == before:
            return False
        self._read()
        return True

    def _read(self) -> None:
        self.authorization = self._newest_authorization()
        self.tls = self._context() if self.scheme == "https" else None

    def _newest_authorization(self) -> str:
        return self._token.header()["authorization"] if self._token else ""

    def _context(self) -> ssl.SSLContext:
        if isinstance(self._trust.context, ssl.SSLContext):
            return self._trust.context
        context = ssl.create_default_context()
        if not self._verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
