"""Requests that name no model are routed as requests for the pool's base model."""

import json
from typing import Any

import pytest

from epp.request.director import Director
from epp.request.parsed import ParsedRequest
from epp.scheduling.snapshot import Adapters
from tests.epp.parts import Gateway, build_director

PROMPT = {"messages": [{"role": "user", "content": "hello " * 40}]}


async def ask(
    director: Director, body: dict[str, Any], status: int = 200, **headers: str
) -> tuple[ParsedRequest, bytes]:
    """Have a server answer a request; return the request as the picker parsed it, and the body as it goes on."""
    gateway = Gateway(director)
    await gateway.request_headers(**headers)
    (answer,) = await gateway.request_body(json.dumps(body).encode())
    changed = answer.request_body.response.body_mutation.body
    routed = gateway.exchange._routed
    assert routed is not None
    await gateway.response_headers(status)
    gateway.exchange.close()
    return routed.parsed, changed


@pytest.mark.parametrize("unnamed", [{}, {"model": None}, {"model": ""}])
async def test_a_request_without_a_model_counts_for_the_base_model(unnamed: dict[str, Any]) -> None:
    director = build_director()
    named, _ = await ask(director, {"model": "base", **PROMPT})
    parsed, changed = await ask(director, {**unnamed, **PROMPT})
    assert parsed.request.model == "base"
    assert parsed.request.block_hashes == named.request.block_hashes
    assert (parsed.incoming_model, changed) == ("", b"")
    page = director.metrics.page().decode()
    assert 'inference_model_request_total{model_name="",target_model_name="base"} 1.0' in page


async def test_the_base_model_is_one_that_a_server_has_served() -> None:
    director = build_director()
    await ask(director, {"model": "unknown", **PROMPT}, status=404)
    assert (await ask(director, PROMPT))[0].request.model == ""
    await ask(director, {"model": "base", **PROMPT})
    await ask(director, {"model": "other", **PROMPT})
    assert (await ask(director, PROMPT))[0].request.model == "base"


async def test_an_adapter_is_no_base_model_also_if_it_is_known_late() -> None:
    director = build_director()
    pool = director.books.pool
    director.books.base_model.adapters = lambda: pool.adapters.values()
    await ask(director, {"model": "adapter", **PROMPT})
    assert (await ask(director, PROMPT))[0].request.model == "adapter"
    pool.record_metrics(0, 0, 0, 0, Adapters(frozenset({"adapter"}), frozenset(), 2))
    assert (await ask(director, PROMPT))[0].request.model == ""
    await ask(director, {"model": "adapter", **PROMPT})
    await ask(director, {"model": "base", **PROMPT})
    assert (await ask(director, PROMPT))[0].request.model == "base"


@pytest.mark.parametrize("body", [PROMPT, {"model": None, **PROMPT}, {}])
async def test_a_rewrite_names_the_model_that_the_body_lacks(body: dict[str, Any]) -> None:
    parsed, changed = await ask(build_director(), body, x_gateway_model_name_rewrite="other")
    assert json.loads(changed) == {**body, "model": "other"}
    assert parsed.request.model == "other"
