import numpy as np

from epp.request.stretches import TokenStretches

FEATURES = np.zeros((13, 1), dtype=np.float32)


def follow(events: int, gap_s: float = 0.01) -> TokenStretches:
    """Return the stretches of a response that has an event each `gap_s`."""
    stretches = TokenStretches()
    for number in range(1, events + 1):
        now_s = number * gap_s
        if number > 1:
            stretches.add(1, now_s)
        if stretches.is_due:
            stretches.begin(FEATURES, number, now_s)
    return stretches


def test_stretches_double_and_each_begins_with_the_features_of_its_time() -> None:
    stretches = follow(300).complete()
    assert [(s.before, s.events) for s in stretches] == [(1, 32), (33, 64), (97, 128), (225, 75)]
    assert all(abs(s.tpot_ms(1.0) - 10) < 1e-6 for s in stretches)


def test_an_event_of_several_tokens_is_not_one_token() -> None:
    (stretch,) = follow(21).complete()
    assert abs(stretch.tpot_ms(tokens_per_event=4.0) - 2.5) < 1e-6


def test_a_short_response_teaches_once_and_a_single_token_nothing() -> None:
    assert [s.events for s in follow(3).complete()] == [2]
    assert follow(1).complete() == []


def test_a_short_rest_is_left_out() -> None:
    assert [s.events for s in follow(36).complete()] == [32]
