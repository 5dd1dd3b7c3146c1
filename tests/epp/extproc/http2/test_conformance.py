"""Test that this package's HTTP/2 is as the standard says, by h2spec."""

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import uvloop

from epp.extproc.http2.front import listen
from epp.extproc.rpc import Services
from serving.listening import Address
from tests.epp.extproc.http2.conformance import H2SPEC, results
from tests.go_programs import NoProgramError

CASES: Final = 146
PATH: Final = "/test.Test/Answer"
_TABLE: Final = (
    "The case lets its dynamic table be larger than this server's SETTINGS_HEADER_TABLE_SIZE of 0, which it has "
    "acknowledged. A server must treat that as a decoding error (RFC 7541, 6.3)."
)
# The cases that fail, and the reason why that is right.
EXPLAINED: Final = {"generic/5/14": _TABLE, "generic/5/15": _TABLE}


@pytest.fixture(scope="session")
def h2spec() -> Path:
    """Build h2spec with Go, unless it is built. Without Go, skip the test."""
    try:
        return H2SPEC.build()
    except NoProgramError as error:
        pytest.skip(str(error))


async def answer(messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Answer once, whatever comes: the cases of flow control need a body."""
    async for _ in messages:
        pass
    yield b"sixteen bytes..."


@pytest.mark.slow
def test_every_case_of_h2spec_passes_except_those_that_are_explained(h2spec: Path) -> None:
    # The picker's event loop is uvloop, too.
    found = uvloop.run(results_of_front(h2spec))
    assert len(found) == CASES
    failed = {number: result for number, result in found.items() if result != "passed"}
    assert failed.keys() == EXPLAINED.keys(), failed


async def results_of_front(h2spec: Path) -> dict[str, str]:
    server = await listen(Address("127.0.0.1", 0), Services(methods={PATH: answer}), None)
    try:
        return await results(h2spec, server.port, PATH)
    finally:
        await server.stop(0)
