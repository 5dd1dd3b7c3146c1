"""Environment variables that other pickers read and that have no effect here, each with the reason."""

from collections.abc import Mapping

UNUSED: Mapping[str, str] = {
    "LATENCY_MAX_BULK_SIZE": "one request predicts for all endpoints, however many there are",
    "LATENCY_COALESCE_WINDOW_MS": "a decision doesn't wait for others",
    "LATENCY_MAX_COALESCED_ROWS": "a decision doesn't wait for others",
    "LATENCY_MAX_CONCURRENT_DISPATCHES": "a prediction has a deadline instead",
    "LATENCY_METRICS_INTERVAL_SEC": "nothing about the models need be fetched beforehand",
    "LATENCY_USE_NATIVE_XGBOOST": "--latency-client embedded predicts in this process, from ONNX",
    "ENABLE_EXPERIMENTAL_DATALAYER_V2": "there is one way of scraping",
}
