from hypothesis import given
from hypothesis import strategies as st

from epp.request.budget import ObservationBudget


def test_a_burst_is_observed_and_then_the_rate_holds() -> None:
    budget = ObservationBudget(10, 1e9)
    assert sum(budget.take(0.0, 0.0) for _ in range(100)) == 20
    assert sum(budget.take(0.0, 1.0) for _ in range(100)) == 10


def test_long_responses_use_up_the_tokens() -> None:
    budget = ObservationBudget(100, 1000)
    assert budget.take(200.0, 0.0)
    budget.spend(4800)
    assert not budget.take(200.0, 2.9)
    assert budget.take(200.0, 3.1)


def test_a_burst_of_long_responses_does_not_end_the_observation_for_long() -> None:
    budget, observed_at_s = ObservationBudget(50, 5000), []
    for number in range(1000):  # 100 requests/s, each of 200 tokens that are still to come
        now_s = number / 100
        if budget.take(200.0, now_s):
            observed_at_s.append(now_s)
    in_each_second = [sum(int(at_s) == second for at_s in observed_at_s) for second in range(2, 10)]
    assert set(in_each_second) == {25}


def test_expected_tokens_that_never_came_are_given_back() -> None:
    budget = ObservationBudget(100, 100)
    assert budget.take(200.0, 0.0)
    assert not budget.take(200.0, 0.0)
    budget.spend(-150.0)
    assert budget.take(200.0, 0.0)


def test_a_budget_of_0_observes_nothing() -> None:
    assert not ObservationBudget(0, 1000).take(0.0, 1.0)
    assert not ObservationBudget(10, 0).take(0.0, 1.0)


@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 300)), max_size=300))
def test_the_observed_tokens_stay_within_the_rate(requests: list[tuple[float, int]]) -> None:
    budget, now_s, followed = ObservationBudget(1e6, 500), 0.0, 0
    for pause_s, tokens in requests:
        now_s += pause_s
        if budget.take(100.0, now_s):
            budget.spend(tokens - 100.0)
            followed += tokens
    # The budget begins with two seconds' worth, and one response may overdraw it.
    assert followed <= 1000 + 500 * now_s + 300
