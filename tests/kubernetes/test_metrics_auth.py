"""Test that a real API server decides who may read the metrics."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from epp.kubernetes.access import connect
from epp.kubernetes.client import Client
from epp.kubernetes.metrics_auth import BearerAuth, TokenReviewer
from tests.kubernetes.control_plane import ControlPlane
from tests.live import until


async def page(request: Request) -> Response:
    return PlainTextResponse("metrics")


def browser(reviewer: TokenReviewer) -> httpx2.AsyncClient:
    routes = [Route("/metrics", page), Route("/debug/decisions", page)]
    app = Starlette(routes=routes, middleware=[Middleware(BearerAuth, reviewer=reviewer)])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://picker")


@pytest_asyncio.fixture
async def reviewer(client: Client) -> TokenReviewer:
    return TokenReviewer(client)


@pytest_asyncio.fixture
async def reader(reviewer: TokenReviewer) -> AsyncIterator[httpx2.AsyncClient]:
    async with browser(reviewer) as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("x"), bearer("x" * 20_000), {"Authorization": "Basic eDp5"}]
)
async def test_requests_without_a_known_token_are_refused(reader: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await reader.get("/metrics", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.slow
async def test_a_known_user_needs_permission_for_the_path(
    reader: httpx2.AsyncClient, reviewer: TokenReviewer, plane: ControlPlane
) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "scraper"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "headroom-epp-metrics-reader",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "scraper"}],
    }
    plane.apply(yaml.safe_dump(binding))
    scraper, stranger = bearer(plane.tokens["scraper"]), bearer(plane.tokens["stranger"])
    until(lambda: allowed(plane, "scraper"))
    answer = await reader.get("/metrics", headers=scraper)
    assert (answer.status_code, answer.text) == (200, "metrics")
    assert (await reader.get("/debug/decisions", headers=scraper)).status_code == 403
    assert (await reader.get("/metrics", headers=stranger)).status_code == 403
    assert (await reader.get("/debug/decisions", headers=bearer(plane.tokens["admin"]))).status_code == 200

    before = reviewer.reviews
    for _ in range(10):
        assert (await reader.get("/metrics", headers=scraper)).status_code == 200
        assert (await reader.get("/metrics", headers=stranger)).status_code == 403
    assert reviewer.reviews == before


async def test_requests_are_refused_while_the_api_server_is_unreachable(tmp_path: Path) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    async with connect(str(tmp_path / "config.yaml")) as client:
        reviewer = TokenReviewer(client)
        async with browser(reviewer) as reader:
            answers = [await reader.get("/metrics", headers=bearer("token")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert reviewer.reviews == 2


def allowed(plane: ControlPlane, user: str) -> bool:
    """Return whether the role has taken effect."""
    spec = {"user": user, "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = plane.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
