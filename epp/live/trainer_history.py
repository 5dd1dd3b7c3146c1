"""The trainer's account of its models, which the live page shows."""

import asyncio
import time
from collections.abc import Mapping

import aiohttp

from epp.trust import Trust
from serving.token_file import TokenFile

_PATH = "/data/history"
_TIMEOUT = aiohttp.ClientTimeout(total=2)
_LARGEST = 8 << 20
# However many pages are open, the trainer is asked this often at most.
_KEPT_S = 2.0


class TrainerHistoryError(Exception):
    """The trainer gave no account. The text says why."""


class TrainerHistory:
    """Asks the trainer when somebody asks, and keeps the answer for a moment."""

    def __init__(self, url: str, trust: Trust, token: TokenFile | None) -> None:
        self._url = url.rstrip("/") + _PATH
        self._trust = trust
        self._token = token
        self._kept = b""
        self._kept_at_s = -_KEPT_S
        self._turn = asyncio.Lock()

    async def read(self) -> bytes:
        """Return the trainer's JSON."""
        async with self._turn:
            if time.monotonic() - self._kept_at_s >= _KEPT_S:
                self._kept = await self._ask()
                self._kept_at_s = time.monotonic()
            return self._kept

    async def _ask(self) -> bytes:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(self._url, headers=self._headers(), ssl=self._trust.context) as answer,
            ):
                if answer.status == 404:
                    raise TrainerHistoryError(f"the trainer at {self._url} doesn't tell of its models: it is another's")
                if answer.status != 200:
                    raise TrainerHistoryError(f"{self._url} answered with status {answer.status}")
                body = await answer.content.read(_LARGEST + 1)
                while not answer.content.at_eof() and len(body) <= _LARGEST:
                    body += await answer.content.read(_LARGEST)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or "no answer in time"
            raise TrainerHistoryError(f"can't reach the trainer at {self._url}: {reason}") from error
        if len(body) > _LARGEST:
            raise TrainerHistoryError(f"{self._url} answered with more than {_LARGEST >> 20} MiB")
        return body

    def _headers(self) -> Mapping[str, str]:
        return self._token.header() if self._token else {}
