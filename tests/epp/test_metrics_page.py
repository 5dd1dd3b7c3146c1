import pytest

from epp.exceptions import ConfigError
from epp.pool.metrics_page import Gauge

PAGE = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 3.0
vllm:num_requests_waiting{engine="1",model_name="b, {c}"} 4.0
vllm:num_requests_waiting_by_reason{reason="x"} 9.0
plain 2.5e-1
timed 7 1700000000000
broken x
"""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("vllm:num_requests_waiting", 3.0),
        ("vllm:num_requests_waiting{engine=1}", 4.0),
        ("vllm:num_requests_waiting{engine=0,model_name=a}", 3.0),
        ("vllm:num_requests_waiting{engine=2}", None),
        ("vllm:num_requests", None),
        ("plain", 0.25),
        ("timed", 7.0),
        ("broken", None),
    ],
)
def test_the_wanted_series_is_read(spec: str, expected: float | None) -> None:
    gauge = Gauge.parse(spec)
    assert gauge is not None
    assert gauge.read(PAGE) == expected


def test_an_empty_name_switches_a_metric_off() -> None:
    assert Gauge.parse("") is None


@pytest.mark.parametrize("spec", ["a b", 'a{b="c"', "9a", "a{{}}"])
def test_a_name_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected name"):
        Gauge.parse(spec)
