import pytest

from epp.exceptions import BadRequestError
from epp.request import headers as request_headers


@pytest.mark.parametrize(
    "value", ["NaN", "Inf", "-1", "abc", "", "1e999", "1_000", "\u0661\u0662", "\uff11\uff12", "1" * 100]
)
def test_an_objective_that_is_no_duration_is_refused_by_name(value: str) -> None:
    with pytest.raises(BadRequestError, match="x-slo-ttft-ms"):
        request_headers.objective_ms({"x-slo-ttft-ms": value}, request_headers.TTFT)


def test_objectives_have_two_names_and_zero_means_none() -> None:
    headers = {"x-slo-ttft-ms": "100", "x-llm-d-slo-ttft-ms": "200.5"}
    assert request_headers.objective_ms(headers, request_headers.TTFT) == 200.5
    assert request_headers.objective_ms({"x-slo-tpot-ms": "0"}, request_headers.TPOT) is None
    assert request_headers.objective_ms({}, request_headers.TPOT) is None


def test_the_prediction_header_takes_the_booleans_of_go() -> None:
    assert request_headers.wants_prediction({"x-prediction-based-scheduling": "T"})
    assert not request_headers.wants_prediction({})
    with pytest.raises(BadRequestError, match="yes"):
        request_headers.wants_prediction({"x-prediction-based-scheduling": "yes"})
