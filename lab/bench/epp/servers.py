"""A pool of stub model servers in one process, with metrics pages like vLLM's, and short streamed answers.

Each server has its own port. Values, and the lengths of the numbers, change from page to page.
"""

import asyncio
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

_ROOT = Path(__file__).parents[3]
_MODEL = 'model_name="simulated-70b"'
_PAGES = 8
_COUNT_PATH = b"/pages-served"
_BUCKETS = (
    *("0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5", "0.75", "1.0"),
    *("2.5", "5.0", "7.5", "10.0", "20.0", "40.0", "80.0", "160.0", "640.0", "2560.0", "+Inf"),
)
_HISTOGRAMS = (
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_n",
    "request_params_max_tokens",
    "iteration_tokens_total",
)
_COUNTERS = (
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "mm_cache_queries_total",
    "mm_cache_hits_total",
)
_EVENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'
_ANSWER = _EVENT * 4 + b"data: [DONE]\n\n"
_ANSWER_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER)


@contextmanager
def model_servers(count: int, *, large_pages: bool, first_port: int = 0) -> Iterator[list[str]]:
    """Run `count` stub servers, and yield their addresses: free ports, or those from `first_port` on.

    With `large_pages`, a page has some 350 series, otherwise six.
    """
    command = [sys.executable, "-m", __name__, str(count), str(int(large_pages)), str(first_port)]
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        ports = process.stdout.readline().split()
        if len(ports) != count:
            raise RuntimeError(f"{len(ports)} of {count} servers started: run `{' '.join(command)}`")
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def pages_served(address: str) -> int:
    """Return how many pages all servers together have served. Any server can be asked."""
    with urllib.request.urlopen(f"http://{address}{_COUNT_PATH.decode()}", timeout=10) as response:
        return int(response.read())


def page(rest: bytes, rng: random.Random) -> bytes:
    """Return a metrics page: the gauges that pickers read, under old and new names, and then `rest`."""
    running, waiting, usage = rng.randrange(64), rng.choice((0, 0, 0, 1, 3, 12)), rng.random()
    gauges = (
        f"# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        f"# TYPE vllm:num_requests_running gauge\n"
        f'vllm:num_requests_running{{engine="0",{_MODEL}}} {running}.0\n'
        f"# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n"
        f"# TYPE vllm:num_requests_waiting gauge\n"
        f'vllm:num_requests_waiting{{engine="0",{_MODEL}}} {waiting}.0\n'
        f"# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.\n"
        f"# TYPE vllm:kv_cache_usage_perc gauge\n"
        f'vllm:kv_cache_usage_perc{{engine="0",{_MODEL}}} {usage}\n'
        f"# HELP vllm:gpu_cache_usage_perc GPU KV-cache usage. 1 means 100 percent usage.\n"
        f"# TYPE vllm:gpu_cache_usage_perc gauge\n"
        f'vllm:gpu_cache_usage_perc{{engine="0",{_MODEL}}} {usage}\n'
        f"# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
        f"# TYPE vllm:cache_config_info gauge\n"
        f'vllm:cache_config_info{{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="37312"}} 1.0\n'
    )
    return gauges.encode() + rest


def large_rest(rng: random.Random) -> bytes:
    """Return counters and histograms like vLLM's."""
    lines = []
    for name in _COUNTERS:
        lines.append(f"# HELP vllm:{name} Number of {name.replace('_', ' ')}.\n# TYPE vllm:{name} counter")
        lines.append(f'vllm:{name}{{engine="0",{_MODEL}}} {rng.randrange(10**9)}.0')
    for reason in ("stop", "length", "abort"):
        ended = f'vllm:request_success_total{{engine="0",finished_reason="{reason}",{_MODEL}}}'
        lines.append(f"{ended} {rng.randrange(10**6)}.0")
    for name in _HISTOGRAMS:
        lines.append(f"# HELP vllm:{name} Histogram of {name.replace('_', ' ')}.\n# TYPE vllm:{name} histogram")
        total = 0
        for bound in _BUCKETS:
            total += rng.randrange(20_000)
            lines.append(f'vllm:{name}_bucket{{engine="0",le="{bound}",{_MODEL}}} {total}.0')
        lines.append(f'vllm:{name}_count{{engine="0",{_MODEL}}} {total}.0')
        lines.append(f'vllm:{name}_sum{{engine="0",{_MODEL}}} {total * rng.random()}')
    return ("\n".join(lines) + "\n").encode()


class _Server(asyncio.Protocol):
    """Answers a GET with a metrics page, and a complete POST with an answer. Serves one request at a time."""

    pages = 0

    def __init__(self, rests: list[bytes], rng: random.Random) -> None:
        self._rests, self._rng = rests, rng
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_bytes = self._received.find(b"\r\n\r\n") + 4
        if head_bytes < 4 or not self._transport:
            return
        if self._received.startswith(b"GET " + _COUNT_PATH):
            self._transport.write(_text(b"%d" % _Server.pages))
        elif self._received.startswith(b"GET "):
            _Server.pages += 1
            self._transport.write(_text(page(self._rng.choice(self._rests), self._rng)))
        elif len(self._received) < head_bytes + _content_length(bytes(self._received[:head_bytes])):
            return
        else:
            self._transport.write(_ANSWER_HEAD + _ANSWER)
        self._received.clear()


def _text(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _content_length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    at = head.lower().find(name)
    return int(head[at + len(name) : head.index(b"\r\n", at + 2)]) if at >= 0 else 0


async def _serve(count: int, large_pages: bool, first_port: int) -> None:
    rng = random.Random(1)
    rests = [large_rest(rng) if large_pages else b"" for _ in range(_PAGES)]
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(
            lambda: _Server(rests, rng), "127.0.0.1", first_port + index if first_port else 0, backlog=16
        )
        for index in range(count)
    ]
    sys.stdout.write(" ".join(str(server.sockets[0].getsockname()[1]) for server in servers) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    how_many, size, first = map(int, sys.argv[1:])
    uvloop.run(_serve(how_many, bool(size), first))
