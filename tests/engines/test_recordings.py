"""The recorded streams, which the picker's observer is tested with, have the form of what vLLM sends today."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.cases import PLAIN, REASONING
from tests.engines.conftest import TIMEOUT_S, Loop
from tests.engines.exchange import ask
from tests.engines.record import FOLDER, GROUPS, recorded_name

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]

RECORDED = {
    name: (kind, case)
    for kind, group in GROUPS.items()
    for case_name, case in group.items()
    if (name := recorded_name(case_name))
}


@pytest.mark.parametrize("name", RECORDED)
async def test_a_recording_has_the_form_of_today(loop: Loop, name: str) -> None:
    kind, case = RECORDED[name]
    answer = await ask(loop.server(kind), case)
    assert forms(answer.body) == forms((FOLDER / f"{name}.sse").read_bytes())


async def test_each_recording_has_its_case() -> None:
    assert {path.stem for path in FOLDER.glob("recorded-*.sse")} == set(RECORDED)
    assert PLAIN.keys().isdisjoint(REASONING)


def forms(stream: bytes) -> set[str]:
    """Return the names of the fields of all events, with what kind of value each has."""
    events = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return {form for event in events for form in _forms(event, "")}


def _forms(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _forms(one, f"{path}/{name}")
    elif isinstance(value, list) and value:
        for one in value:
            yield from _forms(one, f"{path}/*")
    else:
        yield f"{path}: {type(value).__name__}"
