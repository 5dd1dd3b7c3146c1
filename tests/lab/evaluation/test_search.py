import asyncio
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.search import SHARES, Goodput, Grid, Guess, goodput, next_level, search

_MOST_POINTS = 24
ROUGH = Guess(0, 16)


def falling(half_rps: float, steepness: float) -> Callable[[float], float]:
    """Return an attainment that falls from 1 to 0 around `half_rps`."""
    return lambda rate: 1 / (1 + (rate / half_rps) ** steepness)


def rate_of(share: float, half_rps: float, steepness: float) -> float:
    return half_rps * float((1 / share - 1) ** (1 / steepness))


def found(
    curve: Callable[[float], float], grid: Grid, guess: Guess = ROUGH
) -> tuple[dict[float, Goodput], list[float]]:
    tried: list[float] = []

    async def attainment_at(rate: float) -> float:
        tried.append(rate)
        return curve(rate)

    return asyncio.run(search(attainment_at, grid, dict.fromkeys(SHARES, guess))), tried


@given(
    st.floats(0.5, 2e3),
    st.floats(0.25, 4),
    st.floats(4, 60),
    st.sampled_from([1.01, 1.02, 1.04]),
    st.builds(Guess, st.integers(-30, 30), st.sampled_from([1, 4, 16])),
)
def test_a_search_finds_the_rates_of_a_smooth_curve(
    start: float, off: float, steepness: float, ratio: float, guess: Guess
) -> None:
    results, tried = found(falling(start * off, steepness), Grid(start, ratio), guess)
    for share, result in results.items():
        wanted = rate_of(share, start * off, steepness)
        if result.bound:
            assert not Grid(start, ratio).rate(-190) < wanted < Grid(start, ratio).rate(190)
        else:
            assert result.rps == pytest.approx(wanted, rel=ratio - 1)
    assert len(set(tried)) == len(tried) <= _MOST_POINTS


@given(st.floats(0.3, 3), st.floats(5, 40), st.integers(0, 2**32), st.floats(0, 0.03))
def test_noise_neither_prolongs_nor_misleads_a_search(off: float, steep: float, seed: int, noise: float) -> None:
    clean, rng = falling(10 * off, steep), random.Random(seed)
    results, tried = found(lambda rate: min(1.0, clean(rate) + rng.uniform(-noise, noise)), Grid(10))
    assert len(set(tried)) == len(tried) <= _MOST_POINTS
    low, high = rate_of(min(0.9 + noise, 0.9999), 10 * off, steep), rate_of(0.9 - noise, 10 * off, steep)
    assert low / 1.02 <= results[0.9].rps <= high * 1.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.sampled_from([0.9, 0.99]))
def test_a_result_was_measured_on_both_sides(values: list[float], share: float) -> None:
    """This holds for any curve, even for pure noise."""
    grid, known = Grid(10), dict[int, float]()
    while (level := next_level(known, share, grid, ROUGH)) is not None:
        assert level not in known
        assert abs(level) <= grid.reach
        known[level] = values[level % len(values)]
    assert len(known) <= _MOST_POINTS
    result = goodput(known, share, grid)
    attained = [level for level, value in known.items() if value >= share]
    if result.bound == "at most":
        assert not attained
        assert grid.reach + min(known) == 0
    elif result.bound == "at least":
        assert max(attained) == grid.reach
    else:
        below = math.floor(math.log(result.rps / 10, grid.ratio) + 1e-4)
        assert known[below] >= share > known[below + 1]


@pytest.mark.parametrize(("attainment", "bound", "level"), [(1.0, "at least", 192), (0.5, "at most", -192)])
def test_a_share_that_is_always_or_never_attained_gives_a_bound(attainment: float, bound: str, level: int) -> None:
    results, _ = found(lambda rate: attainment, Grid(10))
    assert results[0.9] == results[0.99] == Goodput(Grid(10).rate(level), bound)  # type: ignore[arg-type]


@given(st.floats(0.1, 1e4), st.integers(-192, 192))
def test_a_rate_names_its_level(start: float, level: int) -> None:
    grid = Grid(start)
    assert grid.level(grid.rate(level)) == level


@given(st.floats(0.5, 2), st.floats(10, 60), st.integers(-1, 1))
def test_a_guess_one_level_off_takes_few_runs(off: float, steepness: float, error: int) -> None:
    grid, curve = Grid(10, 1.06, 4, 37), falling(10 * off, steepness)
    wanted = {share: grid.level(rate_of(share, 10 * off, steepness)) for share in SHARES}
    guesses = {share: Guess(level + error, 1) for share, level in wanted.items()}
    tried: list[float] = []

    async def attainment_at(rate: float) -> float:
        tried.append(rate)
        return curve(rate)

    results = asyncio.run(search(attainment_at, grid, guesses))
    assert len(tried) <= 8
    assert results[0.9].rps == pytest.approx(rate_of(0.9, 10 * off, steepness), rel=0.03)


def test_a_guess_at_the_end_of_the_grid_takes_one_run() -> None:
    grid = Grid(10, 1.06, 4, 37)
    results, tried = found(lambda rate: 0.5, grid, Guess(-37, 1))
    assert tried == [grid.rate(-37)]
    assert results[0.9] == Goodput(grid.rate(-37), "at most")
