"""Bearer tokens from a file: the server asks its callers for one of them, and a client sends the first."""

import hmac
import logging
import time
from pathlib import Path
from typing import Final

from serving.exceptions import StartError
from serving.watched_file import POLL_S, file_stamp

logger = logging.getLogger("headroom.tokens")

REFUSAL: Final = "a bearer token is needed: send the header 'authorization: Bearer TOKEN'"


class TokenError(StartError):
    """A file has no usable token; the text names the flag and the reason."""


class TokenFile:
    """The tokens of a file, one a line, re-read when the file changes.

    While an old and a new token are both in the file, callers may use either. The constructor raises TokenError.
    """

    def __init__(self, path: str | Path, flag: str = "--token-file", poll_s: float = POLL_S) -> None:
        self._path = Path(path)
        self._flag = flag
        self._poll_s = poll_s
        self._seen = file_stamp(self._path)
        self._tokens = self._read()
        self._next_check = time.monotonic() + poll_s

    def admits(self, authorization: bytes) -> bool:
        """Tell whether the value of an `authorization` header holds one of the tokens."""
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        given = given.strip()
        return any(hmac.compare_digest(given, token) for token in self._newest())

    def header(self) -> dict[str, str]:
        """Return the header that a client sends."""
        return {"authorization": f"Bearer {self._newest()[0].decode()}"}

    def _newest(self) -> list[bytes]:
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + self._poll_s
            self._refresh()
        return self._tokens

    def _refresh(self) -> None:
        """Read the file if it has changed. If it is unusable, log a warning and keep the tokens."""
        stamp = file_stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._tokens = self._read()
        except TokenError as error:
            logger.warning("%s; the old tokens stay", error)
        else:
            logger.info("loaded %d tokens from %s", len(self._tokens), self._path)

    def _read(self) -> list[bytes]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as error:
            raise TokenError(f"{self._flag}: can't read {self._path}: {error.strerror}") from error
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens:
            raise TokenError(f"{self._flag}: {self._path} has no token; write one a line")
        for token in tokens:
            if not (token.isascii() and token.decode().isprintable()) or b" " in token:
                raise TokenError(f"{self._flag}: {self._path} has a token with spaces or other than ASCII characters")
        return tokens


def open_tokens(path: str, flag: str = "--token-file") -> TokenFile | None:
    """Open the file of this flag; return None if no file is named. Raise TokenError."""
    return TokenFile(path, flag) if path else None
