"""`python -m tests.engines.record`: record the streams of a real vLLM that the picker's observer is tested with.

Writes each streamed case to tests/epp/request/streams/vllm/, with its facts beside it. The facts are told by the
server's usage and by the number of events, not by the observer.
"""

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headroom.processes.ports import free_ports
from headroom.processes.supervisor import Supervisor
from lab.engines.environment import VERSION
from lab.engines.vllm import vllm
from lab.loop.running import new_folder
from tests.engines.cases import PLAIN, REASONING, Case
from tests.engines.exchange import ask

FOLDER = Path(__file__).parents[1] / "epp" / "request" / "streams" / "vllm"
GROUPS: Mapping[str, Mapping[str, Case]] = {"tiny": PLAIN, "reasoning": REASONING}
# Fields of a request that shape its stream.
_SHAPING = ("stream_options", "n", "logprobs", "top_logprobs", "return_token_ids", "echo", "tool_choice")
# Streams of one choice, and with usage.
_RECORDED = re.compile(r".*stream.*")
_LEFT_OUT = re.compile(r"error.*|response.*|.*echo|.*two.*|chat-stream|completion-stream")


async def main() -> None:
    supervisor = Supervisor(new_folder(), lambda name: None)
    ports = free_ports(len(GROUPS))
    try:
        parts = [vllm(kind, port) for kind, port in zip(GROUPS, ports, strict=True)]
        await supervisor.start(parts, lambda name: None)
        for port, group in zip(ports, GROUPS.values(), strict=True):
            for name, case in group.items():
                if recorded := recorded_name(name):
                    answer = await ask(f"http://127.0.0.1:{port}", case)
                    _write(recorded, answer.request, answer.body)
    finally:
        await supervisor.stop()


def recorded_name(case: str) -> str:
    """Return the name of a case's recording, or an empty text for a case that isn't recorded."""
    if not _RECORDED.fullmatch(case) or _LEFT_OUT.fullmatch(case):
        return ""
    return f"recorded-{case.replace('-stream', '')}"


def _write(name: str, request: bytes, body: bytes) -> None:
    FOLDER.joinpath(f"{name}.sse").write_bytes(body)
    asked = json.loads(request)
    shaping = {key: value for key, value in asked.items() if key in _SHAPING and value}
    facts = {
        "server": f"vLLM {VERSION}",
        "made": "recorded",
        "source": "tests/engines/record.py",
        "request": {"stream": True, **shaping},
        **_counts([_decoded(event) for event in body.split(b"\n\n") if event]),
    }
    FOLDER.joinpath(f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    sys.stdout.write(f"{name}: {facts['output_tokens']} tokens, {facts['counted_tokens']} told by events\n")


def _counts(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    is_continuous = sum(bool(event.get("usage")) for event in events) > 1
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "counted_tokens": usage["completion_tokens"] if is_continuous else sum(map(_tokens, events)),
        "followed_tokens": usage["completion_tokens"],
        "first_token": next(number for number, event in enumerate(events) if _tokens(event)),
        "last_token": max(number for number, event in enumerate(events) if event.get("choices")),
    }


def _tokens(event: dict[str, Any]) -> int:
    """Return the number of an event's tokens, as far as the event tells. An empty delta tells none."""
    for choice in event.get("choices") or ():
        if choice.get("delta") == {} or "role" in choice.get("delta", ()):
            return 0
        probabilities = (choice.get("logprobs") or {}).get("content") or ()
        return max(1, len(choice.get("token_ids") or ()), len(probabilities))
    return 0


def _decoded(event: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(event[5:]) if event.startswith(b"data: {") else {}
    return decoded


if __name__ == "__main__":
    asyncio.run(main())
