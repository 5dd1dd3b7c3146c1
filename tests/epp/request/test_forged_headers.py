"""A client's headers change neither its destination, nor priorities, nor the labels of metrics."""

import re
from pathlib import Path

import pytest

from epp.extproc.messages import DESTINATION_HEADER
from epp.extproc.protocol.base_pb2 import HeaderValueOption
from epp.pool.objectives import Objectives
from epp.request import headers as request_headers
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.tokens import TokenEstimator
from epp.scheduling.plugins.prefix import PrefixParameters
from tests.epp.parts import CHAT, Gateway, build_director
from tests.epp.process import token

READ = {
    request_headers.PREDICTION,
    request_headers.REQUEST_ID,
    *request_headers.TTFT,
    *request_headers.TPOT,
    *request_headers.OBJECTIVE,
    *request_headers.REWRITE,
    *request_headers.FAIRNESS_ID,
}
FORGED = {
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-subset",
    "x-headroom-endpoint",
    "x-headroom-profile",
}
OBJECTIVES = Objectives()
OBJECTIVES.replace({"critical": 10})
PATH = "/v1/chat/completions"


@pytest.mark.parametrize("name", request_headers.OBJECTIVE)
@pytest.mark.parametrize(
    "value", ["10", "CRITICAL", " critical", "critical,other", "other;priority=10", "priority: 10"]
)
def test_only_the_exact_name_of_an_objective_has_its_priority(name: str, value: str) -> None:
    def priority(given: str) -> int:
        headers = {":path": PATH, name: given, "x-priority": "10", "priority": "u=0"}
        parsed = RequestReader(TokenEstimator(), priority_of=OBJECTIVES.priority_of).read(
            headers, CHAT, PrefixParameters()
        )
        assert isinstance(parsed, ParsedRequest)
        return parsed.request.priority

    assert priority("critical") == 10
    assert priority(value) == 0


async def test_a_destination_that_the_client_names_is_overwritten() -> None:
    forged = {":path": PATH, **dict.fromkeys(FORGED, "10.9.9.9:1")}
    gateway = Gateway(build_director())
    await gateway.request_headers(**forged)
    (answer,) = await gateway.request_body(CHAT)
    options = answer.request_body.response.header_mutation.set_headers
    (destination,) = [option for option in options if option.header.key == DESTINATION_HEADER]
    assert destination.header.raw_value in (b"10.0.0.0:8000", b"10.0.0.1:8000")
    assert destination.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert "10.9.9.9" not in str(answer)


@pytest.mark.parametrize(("objective", "label"), [("critical", "critical"), ("forged-9", "")])
async def test_no_header_becomes_a_label_but_a_known_objective(objective: str, label: str) -> None:
    director = build_director(objectives=OBJECTIVES)
    forged = {name: f"forged-{number}" for number, name in enumerate(sorted(READ | FORGED))}
    numbers = dict.fromkeys((*request_headers.TTFT, *request_headers.TPOT), "100")
    chosen = {request_headers.PREDICTION: "true", **dict.fromkeys(request_headers.OBJECTIVE, objective)}
    rewritten = dict.fromkeys(request_headers.REWRITE, "model")
    gateway = Gateway(director)
    await gateway.request_headers(**{":path": PATH, **forged, **numbers, **chosen, **rewritten})
    await gateway.request_body(CHAT)
    await gateway.response_headers()
    for number in range(3):
        await gateway.response_body(token("a"), end_of_stream=number == 2)
    gateway.exchange.close()
    page = director.metrics.page().decode()
    assert re.findall(r'headroom_epp_slo_total\{latency="ttft",met="\w+",objective="(.*)"', page) == [label]
    assert "forged" not in page


def test_every_header_that_the_picker_reads_is_listed_for_operators() -> None:
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    assert {name for name in READ | {DESTINATION_HEADER} if f"`{name}`" not in page} == set()
