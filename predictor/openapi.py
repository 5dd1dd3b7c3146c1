"""The OpenAPI document of all HTTP endpoints. https://spec.openapis.org/oas/v3.1.0"""

from importlib.metadata import version
from typing import Any

import msgspec

from model_store import FeatureRow
from predictor.v2.json_body import InferBody
from predictor.v2.rest import IndexRequest, LoadRequest
from predictor.wire import BulkRequest, PredictionResponse, StrictBulkResponse

_REF = "#/components/schemas/{name}"
_NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "ttft"}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"}}
_FLAT = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
_COLUMN = {"anyOf": [{"type": ["number", "null"]}, {"type": "array", "items": {"type": ["number", "null"]}}]}
_V1_BODY = {
    "description": "One row, many rows, or columns. GET the same path for the features' names, units and ranges.",
    "anyOf": [
        _FLAT,
        {
            "type": "object",
            "required": ["rows"],
            "additionalProperties": False,
            "properties": {"rows": {"type": "array", "minItems": 1, "items": _FLAT}},
        },
        {
            "type": "object",
            "required": ["columns"],
            "additionalProperties": False,
            "properties": {"columns": {"type": "object", "additionalProperties": _COLUMN}},
        },
    ],
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}
_ANYTHING = {"type": "object"}
_INDEX = {"type": "array", "items": {"type": "object", "required": ["name", "version", "state", "reason"]}}


def document() -> dict[str, Any]:
    """Return the document. It does not depend on the loaded models."""
    structs = [FeatureRow, BulkRequest, PredictionResponse, StrictBulkResponse, InferBody, IndexRequest, LoadRequest]
    schemas, components = msgspec.json.schema_components(structs, ref_template=_REF)
    row, bulk, prediction, predictions, infer, index, load = schemas
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headroom predictor",
            "version": version("headroom"),
            "description": "Predicts latencies, and runs any ONNX model of the model store. Errors say what to change.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **_latencies(),
            **_sidecar(row, bulk, prediction, predictions),
            **_inference(infer, index, load),
            "/metrics": {"get": _operation("Metrics in Prometheus' text format", "metrics", text=True)},
            "/openapi.json": {"get": _operation("This document", "metrics")},
        },
        "components": {"schemas": components},
    }


def _latencies() -> dict[str, Any]:
    return {
        "/v1": {"get": _operation("List the served models", "v1")},
        "/v1/{model}": {
            "parameters": [_NAME],
            "get": _operation(
                "Describe a model: features, units, ranges, and a curl command", "v1", refused=(404, 503)
            ),
            "post": _operation("Predict from features by name", "v1", _V1_BODY, refused=_REFUSED),
        },
    }


def _sidecar(row: Any, bulk: Any, prediction: Any, predictions: Any) -> dict[str, Any]:
    refused = (400, 408, 413, 415, 422, 503)
    return {
        "/predict": {
            "post": _operation("Predict both latencies of a row", "sidecar", row, prediction, refused, _DETAIL),
        },
        **{
            path: {
                "post": _operation(
                    "Predict both latencies of many rows", "sidecar", bulk, predictions, refused, _DETAIL
                )
            }
            for path in ("/predict/bulk", "/predict/bulk/strict")
        },
        "/predict/columns": {"post": _columns(refused)},
        "/status": {"get": _operation("Show the loaded models, and why newer ones are not loaded", "sidecar")},
        "/reload": {"post": _operation("Check the model store now", "sidecar")},
        "/healthz": {"get": _operation("Tell that the process is alive", "sidecar")},
        "/readyz": {
            "get": _operation("Tell if both latency models are loaded", "sidecar", refused=(503,), error=_DETAIL)
        },
        "/": {"get": _operation("Show the server's name and settings", "sidecar")},
    }


def _columns(refused: tuple[int, ...]) -> dict[str, Any]:
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    operation = _operation(
        "Predict both latencies of many rows, in a binary format", "sidecar", None, None, refused, _DETAIL
    )
    operation["description"] = (
        'The body is a line of JSON, `{"features": ["kv_cache_percentage", ...]}`, followed by the columns of these '
        "features. Each number is a little-endian float32; NaN means unknown. The answer is a line of JSON, "
        '`{"generation": 5}`, followed by the columns of TTFT and TPOT in ms. With `"medians": true` in the first '
        "line, the columns of both medians follow, provided that both models predict one."
    )
    operation["requestBody"] = {"required": True, "content": binary}
    operation["responses"]["200"]["content"] = binary
    return operation


def _inference(infer: Any, index: Any, load: Any) -> dict[str, Any]:
    one, exact = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("Show the server and its extensions", "v2")},
        "/v2/health/live": {"get": _operation("Tell that the process is alive", "v2")},
        "/v2/health/ready": {"get": _operation("Tell if a model is served", "v2", refused=(503,), error=_ANYTHING)},
        "/v2/models/stats": {"get": _operation("Show statistics of all models", "v2")},
        "/v2/repository/index": {
            "post": _operation("List versions, states and reasons", "v2", index, _INDEX, _REFUSED)
        },
    }
    for path, parameters in ((one, [_NAME]), (exact, [_NAME, _VERSION])):
        about = {"parameters": parameters}
        missing = (400, 404, 503)
        paths[path] = {**about, "get": _operation("Show a model's inputs and outputs", "v2", refused=missing)}
        paths[f"{path}/ready"] = {**about, "get": _operation("Tell if the model is served", "v2", refused=missing)}
        paths[f"{path}/config"] = {
            **about,
            "get": _operation("Show the configuration in Triton's format", "v2", refused=missing),
        }
        paths[f"{path}/stats"] = {**about, "get": _operation("Show statistics of the model", "v2", refused=missing)}
        paths[f"{path}/infer"] = {**about, "post": _operation("Run the model", "v2", infer, refused=_REFUSED)}
    for act in ("load", "unload"):
        operation = _operation(f"{act.capitalize()} a model, in control mode explicit", "v2", load, refused=_REFUSED)
        paths[f"/v2/repository/models/{{model}}/{act}"] = {"parameters": [_NAME], "post": operation}
    return paths


_REFUSED = (400, 404, 408, 409, 413, 415, 503)


def _operation(
    summary: str,
    tag: str,
    body: Any = None,
    answer: Any = None,
    refused: tuple[int, ...] = (),
    error: Any = None,
    *,
    text: bool = False,
) -> dict[str, Any]:
    content = {"text/plain": {}} if text else {"application/json": {"schema": answer or _ANYTHING}}
    refusal = {"application/json": {"schema": error or _ERROR}}
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {
            "200": {"description": "Success", "content": content},
            **{str(status): {"description": "Refused, with the reason", "content": refusal} for status in refused},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation
