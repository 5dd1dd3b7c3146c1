"""The decision log is bounded in bytes, whatever clients send."""

import json
import tracemalloc

from epp.request.decisions import explain
from tests.epp.parts import Gateway, build_director

MIB = 1 << 20


async def test_long_names_fill_no_memory() -> None:
    """Sixty names of 20 MB took 1.3 GB, and kept it."""
    director = build_director()
    held = []
    tracemalloc.start()
    try:
        for index in range(60):
            gateway = Gateway(director)
            long = f"{index}" + "n" * (MIB // 2)
            await gateway.request_headers(x_request_id=long, x_other=long, x_gateway_inference_objective=long)
            await gateway.request_body(json.dumps({"model": long, "prompt": long}).encode())
            gateway.exchange.close()
            del gateway, long
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[-1] - held[9] < MIB


async def test_a_logged_decision_has_its_outcome_and_its_features() -> None:
    director = build_director()
    gateway = Gateway(director)
    await gateway.request_headers(x_request_id="r", x_secret="hunter2")
    await gateway.request_body(json.dumps({"model": "m", "prompt": "p" * 400}).encode())
    await gateway.response_headers(200)
    gateway.exchange.close()
    (record,) = director.books.decisions.newest(1)
    explained = explain(record)
    assert (explained["request_id"], explained["model"], explained["input_tokens"]) == ("r", "m", 100)
    assert explained["outcome"]["status"] == 200
    assert explained["candidates"][0]["features"]["input_token_length"] == 100
    assert "hunter2" not in repr(record)
