import pytest

from epp.request.event_tokens import EventTokens


def test_the_estimate_follows_the_usual_response() -> None:
    known = EventTokens()
    for number in range(200):
        # A parser keeps most tokens of every third response back.
        known.learn("a", 600 if number % 3 == 0 else 250, 100)
    assert known.of("a") == pytest.approx(2.5, rel=0.1)
    assert known.of("b") == 1.0


def test_events_of_one_token_each_stay_so() -> None:
    known = EventTokens()
    for tokens in (1, 20, 300):
        known.learn("a", tokens, tokens)
    assert known.of("a") == 1.0


def test_a_short_response_tells_nothing() -> None:
    known = EventTokens()
    known.learn("a", 60, 7)
    assert known.of("a") == 1.0


def test_the_endpoints_that_are_remembered_are_bounded() -> None:
    known = EventTokens()
    for number in range(10_000):
        known.learn(str(number), 100, 50)
    assert len(known._by_address) <= 4096
