"""What clients ask of model servers, by OpenAI's own client: every API, option and error that they commonly use."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from openai import AsyncOpenAI, AsyncStream

from lab.engines.vllm import MODEL

# Each case sends one request, and reads the answer to its end.
Case = Callable[[AsyncOpenAI], Awaitable[object]]
HELLO: Any = [{"role": "user", "content": "Tell me of the sea."}]
LONG: Any = [{"role": "user", "content": "All work and no play makes a dull day. " * 500}]
# The end of a thought comes in the middle of a short answer: random weights would hardly ever choose it.
END_OF_THOUGHT, LIKELY = 4093, 5.0
SCHEMA = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]}
TOOL: Any = {"type": "function", "function": {"name": "measure", "parameters": SCHEMA}}
FIXED: Mapping[str, Any] = {"model": MODEL, "seed": 1, "temperature": 0.0}
USAGE: Any = {"include_usage": True}
CONTINUOUS: Any = {"include_usage": True, "continuous_usage_stats": True}


def chat(**options: Any) -> Case:
    """Return the case of a chat. A stream is read to its end."""
    body: dict[str, Any] = {**FIXED, "messages": HELLO, "max_completion_tokens": 12, **options}

    async def ask(client: AsyncOpenAI) -> object:
        return await _read(await client.chat.completions.create(**body))

    return ask


def completion(**options: Any) -> Case:
    body: dict[str, Any] = {**FIXED, "prompt": "Tell me of the sea.", "max_tokens": 12, **options}

    async def ask(client: AsyncOpenAI) -> object:
        return await _read(await client.completions.create(**body))

    return ask


def response(**options: Any) -> Case:
    body: dict[str, Any] = {"model": MODEL, "input": "Tell me of the sea.", "max_output_tokens": 12, **options}

    async def ask(client: AsyncOpenAI) -> object:
        return await _read(await client.responses.create(temperature=0.0, store=False, **body))

    return ask


def post(path: str, body: Any) -> Case:
    """Return the case of a request that the client has no method for, or that its types forbid."""

    async def ask(client: AsyncOpenAI) -> object:
        return await client.post(path, body=body, cast_to=object)

    return ask


async def models(client: AsyncOpenAI) -> object:
    return await client.models.list()


async def embeddings(client: AsyncOpenAI) -> object:
    return await client.embeddings.create(model=MODEL, input=["Tell me of the sea.", "And of the sky."])


async def _read(answer: object) -> object:
    if not isinstance(answer, AsyncStream):
        return answer
    events: AsyncIterator[object] = aiter(answer)
    return [event async for event in events]


# Cases for any server.
PLAIN: Mapping[str, Case] = {
    "models": models,
    "chat": chat(),
    "chat-two-choices": chat(n=2, temperature=0.9),
    "chat-stop": chat(stop=["e"]),
    "chat-logprobs": chat(logprobs=True, top_logprobs=3),
    "chat-json-schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA}},
        max_completion_tokens=40,
    ),
    "chat-long-prompt": chat(messages=LONG),
    "chat-parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Tell me of the sea."}]}]),
    "chat-without-model": post("/chat/completions", {"messages": HELLO, "max_tokens": 3, "temperature": 0}),
    "chat-stream": chat(stream=True),
    "chat-stream-usage": chat(stream=True, stream_options=USAGE),
    "chat-stream-continuous-usage": chat(stream=True, stream_options=CONTINUOUS),
    "chat-stream-two-choices": chat(stream=True, stream_options=USAGE, n=2, temperature=0.9),
    "chat-stream-stop": chat(stream=True, stream_options=USAGE, stop=["e"]),
    "chat-stream-logprobs": chat(stream=True, stream_options=USAGE, logprobs=True, top_logprobs=2),
    "chat-stream-token-ids": chat(stream=True, stream_options=USAGE, extra_body={"return_token_ids": True}),
    "completion": completion(),
    "completion-token-ids": completion(prompt=[72, 101, 108, 108, 111]),
    "completion-prompts": completion(prompt=["One", "Two"]),
    "completion-echo": completion(echo=True, logprobs=2),
    "completion-best-of": completion(n=2, temperature=0.9),
    "completion-stream": completion(stream=True),
    "completion-stream-usage": completion(stream=True, stream_options=USAGE),
    "completion-stream-two-prompts": completion(stream=True, stream_options=USAGE, prompt=["One", "Two"]),
    "completion-stream-echo": completion(stream=True, stream_options=USAGE, echo=True),
    "response": response(),
    "response-stream": response(stream=True),
    "error-embeddings": embeddings,
    "tokenize": post("/../tokenize", {"model": MODEL, "prompt": "Tell me of the sea."}),
    "error-unknown-model": chat(model="absent"),
    "error-too-long": chat(max_completion_tokens=9000),
    "error-no-messages": post("/chat/completions", {"model": MODEL}),
    "error-wrong-type": post("/chat/completions", {"model": MODEL, "messages": HELLO, "max_tokens": "many"}),
    "error-temperature": chat(temperature=-1.0),
    "error-stream-too-long": chat(stream=True, max_completion_tokens=9000),
    "error-unknown-path": post("/nothing", {"model": MODEL}),
}
# Cases for a server with parsers of thoughts and tool calls.
_ENDING: Any = {"logit_bias": {str(END_OF_THOUGHT): LIKELY}, "temperature": 1.0, "max_completion_tokens": 60}
_NAMED: Any = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "measure"}}}
_REQUIRED: Any = {"tools": [TOOL], "tool_choice": "required"}
REASONING: Mapping[str, Case] = {
    "reasoning": chat(),
    "reasoning-and-text": chat(**_ENDING),
    "reasoning-stream": chat(stream=True, stream_options=USAGE),
    "reasoning-stream-continuous-usage": chat(stream=True, stream_options=CONTINUOUS),
    "reasoning-stream-and-text": chat(stream=True, stream_options=USAGE, **_ENDING),
    "tool-named": chat(**_ENDING, **_NAMED),
    "tool-required": chat(**_ENDING, **_REQUIRED),
    "tool-named-stream": chat(stream=True, stream_options=USAGE, **_ENDING, **_NAMED),
    "tool-required-stream": chat(stream=True, stream_options=USAGE, **_ENDING, **_REQUIRED),
    "response-reasoning-stream": response(stream=True),
}
# Cases for a server with LoRA adapters.
ADAPTERS: Mapping[str, Case] = {
    "adapter-models": models,
    "adapter-1": chat(model="adapter-1"),
    "adapter-2-stream": chat(model="adapter-2", stream=True, stream_options=USAGE),
    "adapter-base": chat(),
}
EMBEDDINGS: Mapping[str, Case] = {"embeddings": embeddings}
