import pytest

from epp.scraping.pace import ScrapeInterval, ScrapePace

BOUNDS = ScrapeInterval(0.05, 0.5)


def intervals(pace: ScrapePace, reported: float, own: float, pages: int = 5) -> list[float]:
    found = []
    for _ in range(pages):
        pace.page_came(reported, own)
        found.append(pace.seconds)
    return found


def test_an_endpoint_whose_load_is_explained_is_asked_more_and_more_seldom() -> None:
    assert intervals(ScrapePace(BOUNDS), 20.0, 20.0) == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert intervals(ScrapePace(BOUNDS), 0.0, 3.0)[-1] == 0.5


def test_one_request_or_a_tenth_that_the_picker_did_not_send_is_tolerated() -> None:
    assert intervals(ScrapePace(BOUNDS), 3.0, 2.0)[-1] == 0.5
    assert intervals(ScrapePace(BOUNDS), 40.0, 36.0)[-1] == 0.5


@pytest.mark.parametrize(("reported", "own"), [(3.0, 1.0), (40.0, 35.0), (2.0, 0.0)])
def test_an_endpoint_with_requests_of_others_is_asked_often(reported: float, own: float) -> None:
    pace = ScrapePace(BOUNDS)
    intervals(pace, 5.0, 5.0)
    assert intervals(pace, reported, own, pages=1) == [0.05]


def test_requests_that_end_while_a_page_is_on_its_way_are_explained() -> None:
    pace = ScrapePace(BOUNDS)
    pace.asked(0.0, own=20.0)
    assert intervals(pace, 20.0, 5.0, pages=1) == [0.1]


def test_equal_bounds_fix_the_interval() -> None:
    pace = ScrapePace(ScrapeInterval(0.2, 0.2))
    assert intervals(pace, 5.0, 5.0) == [0.2] * 5


def test_an_endpoint_is_due_a_little_before_its_interval_has_passed() -> None:
    pace = ScrapePace(ScrapeInterval(1.0, 1.0))
    assert pace.is_due(10.0)
    pace.asked(10.0, own=0.0)
    assert not pace.is_due(10.8)
    assert pace.is_due(10.95)
