"""A model server over HTTP, asked for completions whose tokens are timed."""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from lab.calibration.exceptions import DisturbedError, MeasureError
from lab.calibration.server.asks import Ask, Timeline
from lab.calibration.server.page import Page, parse_page

# Several tokens may come in one event, so that those counted by the server count.
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens": ?(\d+)')
_ERROR = re.compile(rb'data: ?(\{"error".*)')
_WATCH_S = 1.0
# vLLM closes connections that are idle for 5 s. A request on one that is just being closed would fail.
_KEEP_S = 2.0
_PAGE_S = 10.0


class HttpServer:
    """A server at `url`. Use it as an asynchronous context manager.

    `read_s` is the longest silence of the server, in seconds. With `watches`, the server's metrics are read every
    second while requests run: requests of others end the run with DisturbedError, so that users wait little for it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = "",
        ca_file: Path | None = None,
        read_s: float = 60.0,
        watches: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._ca_file = ca_file
        self._read_s = read_s
        self._watches = watches
        self._session: aiohttp.ClientSession
        self._unfinished = 0

    async def __aenter__(self) -> "HttpServer":
        trusted: ssl.SSLContext | bool = True
        if self._ca_file:
            try:
                trusted = ssl.create_default_context(cafile=self._ca_file)
            except (OSError, ssl.SSLError) as error:
                raise MeasureError(f"can't read the certificates in {self._ca_file}: {error}") from error
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self._read_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted, keepalive_timeout=_KEEP_S),
            timeout=timeout,
            headers=self._headers,
            read_bufsize=1 << 20,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._session.close()

    async def choose_model(self) -> dict[str, Any]:
        """Return the model's card from /v1/models; without a name, that of the first model."""
        try:
            cards: list[dict[str, Any]] = json.loads(await self._get("/v1/models"))["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise MeasureError(
                f"{self.url}/v1/models is no list of models: is this a server of OpenAI's API?"
            ) from error
        names = [str(card["id"]) for card in cards]
        if not names:
            raise MeasureError(f"{self.url} serves no model")
        self.model = self.model or names[0]
        if self.model not in names:
            raise MeasureError(f"{self.url} doesn't serve {self.model!r}, but {', '.join(names[:5])}")
        return cards[names.index(self.model)]

    async def version(self) -> str:
        with suppress(MeasureError, ValueError, KeyError, TypeError):
            return str(json.loads(await self._get("/version"))["version"])
        return "unknown"

    async def page(self) -> Page:
        return parse_page(await self._get("/metrics"))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def run(self, asks: Sequence[Ask]) -> list[Timeline]:
        start = time.perf_counter()
        sending = [asyncio.create_task(self._send(ask, start)) for ask in asks]
        watching = asyncio.create_task(self._watch())
        together = asyncio.gather(*sending)
        try:
            await asyncio.wait((together, watching), return_when=asyncio.FIRST_COMPLETED)
            if not together.done():
                watching.result()
            return await together
        finally:
            for task in (*sending, watching):
                task.cancel()
            await asyncio.gather(together, *sending, watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Raise DisturbedError if there are more requests on the server than the own ones, twice in a row.

        The server's metrics are a step late.
        """
        excess = 0
        while True:
            await asyncio.sleep(_WATCH_S)
            own = self._unfinished
            excess = excess + 1 if self._watches and (await self.page()).present > own else 0
            if excess == 2:
                raise DisturbedError

    async def _send(self, ask: Ask, start: float) -> Timeline:
        if ask.at_s:
            await asyncio.sleep(ask.at_s - (time.perf_counter() - start))
        body = {
            "model": self.model,
            "prompt": ask.prompt,
            "max_tokens": ask.output_tokens,
            "min_tokens": ask.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if ask.priority:
            body["priority"] = ask.priority
        data = json.dumps(body).encode()
        timeline = Timeline(time.perf_counter() - start)
        self._unfinished += 1
        try:
            async with asyncio.timeout(ask.leave_s):
                await self._stream(data, timeline, start)
        except TimeoutError as error:
            if ask.leave_s is not None and not isinstance(error, aiohttp.ServerTimeoutError):
                return timeline
            raise MeasureError(f"{self.url} was silent for {self._read_s:.0f} s: --timeout allows more") from error
        except (aiohttp.ClientError, OSError) as error:
            raise MeasureError(_words(self.url, error)) from error
        finally:
            self._unfinished -= 1
        if not timeline.tokens or timeline.tokens[-1] != ask.output_tokens:
            got = timeline.tokens[-1] if timeline.tokens else 0
            raise MeasureError(f"asked for {ask.output_tokens} tokens, got {got}: the server ignores ignore_eos")
        return timeline

    async def _stream(self, data: bytes, timeline: Timeline, start: float) -> None:
        headers = {"content-type": "application/json"}
        async with self._session.post(f"{self.url}/v1/completions", data=data, headers=headers) as response:
            if response.status != 200:
                raise MeasureError(_refusal(self.url, response.status, await response.text(errors="replace")))
            rest, events, usage = b"", 0, 0
            async for chunk in response.content.iter_any():
                now_s = time.perf_counter() - start
                whole, _, rest = (rest + chunk).rpartition(b"\n\n")
                if error := _ERROR.search(whole):
                    raise MeasureError(f"{self.url} ended an answer with {error[1][:200].decode(errors='replace')}")
                counted = _COMPLETION.findall(whole)
                usage = int(counted[-1]) if counted else usage
                events += whole.count(b'"text"')
                tokens = usage or events
                if tokens > (timeline.tokens[-1] if timeline.tokens else 0):
                    timeline.times.append(now_s)
                    timeline.tokens.append(tokens)
                if prompt := _PROMPT.search(whole):
                    timeline.prompt_tokens = int(prompt[1])
        if not usage:
            raise MeasureError(f"{self.url} sends no usage in streams: it ignores stream_options.include_usage")

    async def _get(self, path: str) -> str:
        try:
            async with asyncio.timeout(_PAGE_S), self._session.get(self.url + path) as response:
                text = await response.text(errors="replace")
                if response.status != 200:
                    raise MeasureError(_refusal(self.url + path, response.status, text))
                return text
        except TimeoutError as error:
            raise MeasureError(f"{self.url}{path} didn't answer in {_PAGE_S:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise MeasureError(_words(self.url, error)) from error


def _words(url: str, error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{url} has a certificate that isn't trusted ({error.certificate_error}): --ca-file names its authority"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{url} doesn't speak TLS as asked: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"can't reach {url}: {error.strerror or error}"
    if isinstance(error, aiohttp.InvalidURL):
        return f"{url} is no URL of a server: expected http://HOST:PORT"
    return f"{url} failed: {error or type(error).__name__}"


def _refusal(url: str, status: int, text: str) -> str:
    if status in (401, 403):
        return f"{url} refuses the API key ({status}): --api-key-file names a file with one"
    return f"{url} answered with status {status}: {' '.join(text.split())[:200]}"
