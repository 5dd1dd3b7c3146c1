import os

import pytest

from simulator.prompt import block_hashes, token_count
from simulator.trace import TraceRequest, load_trace
from simulator.wire import ChatCompletion, Message
from simulator.workload import PlannedRequest, SharedPrefix, SloClass, plan

LONG = [TraceRequest(float(index), 200, 10) for index in range(400)]


def hashes(request: PlannedRequest) -> tuple[int, ...]:
    return block_hashes(ChatCompletion(model="m", messages=[Message("user", request.prompt)]).text(), 16)


def test_the_seed_repeats_a_plan_and_the_salt_changes_texts() -> None:
    trace = load_trace()[:20]
    one, again, other = (plan(trace, seed=3, salt=salt) for salt in ("a", "a", "b"))
    assert one == again
    assert [r.slo_ttft_ms for r in one] == [r.slo_ttft_ms for r in other]
    assert not {r.prompt for r in one} & {r.prompt for r in other}
    assert not {r.id for r in one} & {r.id for r in other}


def test_a_planned_prompt_has_the_traces_length() -> None:
    for request in plan(load_trace()[:50], seed=3, shared=SharedPrefix(0.5, 64)):
        body = ChatCompletion(model="m", messages=[Message("user", request.prompt)])
        assert token_count(body.text()) == max(request.prompt_tokens, 8)


def test_objectives_come_from_the_class_and_the_prompt() -> None:
    slo = SloClass("only", 1.0, ttft_ms=100, ttft_ms_per_prompt_token=0.5, tpot_ms=40)
    request = plan(LONG[:1], seed=0, classes=[slo])[0]
    assert (request.slo_class, request.slo_ttft_ms, request.slo_tpot_ms) == ("only", 200, 40)


def test_classes_get_their_shares() -> None:
    classes = [SloClass("rare", 0.1, 1, 0, 1), SloClass("usual", 0.9, 1, 0, 1)]
    rare = sum(request.slo_class == "rare" for request in plan(LONG, seed=1, classes=classes))
    assert rare == pytest.approx(40, abs=20)


def test_texts_share_no_block_without_a_shared_prefix() -> None:
    first_blocks = {hashes(request)[0] for salt in "ab" for request in plan(LONG, seed=1, salt=salt)}
    assert len(first_blocks) == 2 * len(LONG)


def test_a_share_of_the_requests_begin_with_the_same_blocks() -> None:
    seventh = [hashes(request)[7] for request in plan(LONG, seed=1, shared=SharedPrefix(0.25, 160))]
    common = max(set(seventh), key=seventh.count)
    assert seventh.count(common) == pytest.approx(100, abs=30)
    assert len(set(seventh)) == len(LONG) - seventh.count(common) + 1


def test_block_hashes_depend_on_all_earlier_blocks() -> None:
    text = os.urandom(256)
    assert block_hashes(text + b"rest", 16) == block_hashes(text, 16)
    assert not set(block_hashes(b"?" + text[1:], 16)) & set(block_hashes(text, 16))
