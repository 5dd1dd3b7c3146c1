"""The request headers that the picker reads, by the names that gateways and clients use."""

import math
from collections.abc import Mapping

from epp.exceptions import BadRequestError

TTFT = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
TPOT = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
PREDICTION = "x-prediction-based-scheduling"
REQUEST_ID = "x-request-id"
# W3C Trace Context.
TRACEPARENT = "traceparent"
OBJECTIVE = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
REWRITE = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
FAIRNESS_ID = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
# Headers for the picker alone, removed before the request goes on.
REMOVED = (*OBJECTIVE, *REWRITE, *FAIRNESS_ID)
# Digits of a size in bytes that is believed.
_LONGEST_LENGTH = 12
# Characters of a number that is believed.
_LONGEST_NUMBER = 64

# The texts that Go's strconv.ParseBool accepts, which is the documented format of the header.
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the value of the first of these headers that is present; None when none is."""
    for name in names:
        if name in headers:
            return headers[name]
    return None


def content_length(headers: Mapping[str, str]) -> int:
    """Return the announced size of the body in bytes; 0 without a believable one."""
    text = headers.get("content-length", "")
    return int(text) if len(text) <= _LONGEST_LENGTH and text.isascii() and text.isdigit() else 0


def objective_ms(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    """Return the objective in ms from the first header that is present; None without one, or when it is 0.

    Raise BadRequestError unless the value is a finite number of at least 0.
    """
    for name in names:
        if name in headers:
            value = _number(headers[name])
            if not math.isfinite(value) or value < 0:
                raise BadRequestError(f"{name}: expected a number of milliseconds, got {headers[name][:100]!r}")
            return value or None
    return None


def _number(text: str) -> float:
    """Return the number, or NaN if the text is none. Python alone takes `1_000`, and the digits of other scripts."""
    if not text.isascii() or "_" in text or len(text) > _LONGEST_NUMBER:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def wants_prediction(headers: Mapping[str, str]) -> bool:
    text = headers.get(PREDICTION, "false")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadRequestError(f"{PREDICTION}: expected true or false, got {text[:100]!r}")
