"""`headroom look` finds nothing amiss with a real vLLM server."""

import pytest

from headroom.servers.access import ServerAccess
from headroom.servers.command import look_at_all
from tests.engines.conftest import TIMEOUT_S, Loop

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]


async def test_a_real_server_is_known_and_needs_no_change(loop: Loop) -> None:
    [found] = await look_at_all([loop.server("tiny")], ServerAccess(), asks=True)
    assert (found.problem, found.engine, found.missing, found.advice) == ("", "vllm", (), ())
    assert found.counts_tokens is True
    assert found.version.count(".") == 2
