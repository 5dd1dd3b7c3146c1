"""OpenAI's own client gets the same answers through Envoy and the picker as from vLLM itself."""

from collections.abc import Mapping

import pytest

from tests.engines.cases import ADAPTERS, EMBEDDINGS, PLAIN, REASONING, Case
from tests.engines.conftest import TIMEOUT_S, Loop
from tests.engines.exchange import ask
from tests.envoy.rig import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]

GROUPS: Mapping[str, Mapping[str, Case]] = {
    "tiny": PLAIN,
    "reasoning": REASONING,
    "adapters": ADAPTERS,
    "embeddings": EMBEDDINGS,
}


@pytest.mark.parametrize(
    ("kind", "case"), [pytest.param(kind, case, id=name) for kind in GROUPS for name, case in GROUPS[kind].items()]
)
async def test_a_client_sees_what_the_server_sends(loop: Loop, kind: str, case: Case) -> None:
    await loop.pool(kind)
    # Twice: a server computes a prompt that it has cached in other steps, whose sums differ in their last digits.
    await ask(loop.server(kind), case)
    direct = await ask(loop.server(kind), case)
    through = await ask(loop.url, case)
    assert through.status > 0
    assert through.fixed == direct.fixed
    await until(loop.is_idle)
