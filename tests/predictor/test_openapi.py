import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from model_store import open_store
from predictor.openapi import document
from tests.live import PATIENCE_S, call
from tests.predictor.models import pair, running_predictor
from tests.predictor.triton_models import doubling, put

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    open_store(str(folder)).publish(pair(1.0))
    put(folder, "doubling", 1, doubling())
    with running_predictor(folder, model_control_mode="explicit", load_model=("*",)) as running:
        yield running


OPERATIONS = [
    (method, path) for path, item in document()["paths"].items() for method in ("get", "post") if method in item
]


@pytest.fixture(scope="module")
def api(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_allowed_and_forbidden_requests_get_documented_answers(api: Any, method: str, path: str) -> None:
    """Send requests that the document allows and forbids; each answer's status and body must be in the document."""
    operation = api[path][method]

    def ask(case: Any) -> None:
        response = case.call(timeout=PATIENCE_S)
        if not (response.status_code == 503 and "503" in operation.definition.raw["responses"]):
            case.validate_response(response, checks=[not_a_server_error])
        case.validate_response(
            response, checks=[status_code_conformance, response_schema_conformance, content_type_conformance]
        )

    # Only JSON bodies can violate the document: it allows any binary body, and other requests have none.
    allowed = operation.definition.raw.get("requestBody", {"content": {}})["content"]
    for mode in GenerationMode if "application/json" in allowed else [GenerationMode.POSITIVE]:
        strategy = operation.as_strategy(generation_mode=mode)
        bounded = settings(max_examples=25, database=None, suppress_health_check=list(HealthCheck))
        bounded(given(strategy)(ask))()  # type: ignore[no-untyped-call]


def test_every_route_is_in_the_document(url: str) -> None:
    from starlette.routing import Route

    from predictor.app import create_app
    from tests.predictor.models import configuration

    described = set(call(f"{url}/openapi.json")[1]["paths"])
    app = create_app(configuration("/nowhere"))
    served = {route.path for route in app.starlette.routes if isinstance(route, Route)}
    unserved = {path for path in served if "rest:path" in path} | {"/docs", "/v2/logging"}
    assert served - unserved <= described
    assert {"/predict", "/predict/bulk", "/v1/{model}", "/v2/models/{model}/infer"} <= described


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
def test_the_page_lists_every_operation_in_a_browser(url: str, tmp_path: Path) -> None:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=5000",
    ]
    command = [str(CHROMIUM), *flags, "--dump-dom", f"{url}/docs"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    assert 'data-ready="true"' in page
    for path, item in document()["paths"].items():
        assert json.dumps(path).strip('"') in page
        for method in item.keys() & {"get", "post"}:
            assert item[method]["summary"].split("'")[0] in page
