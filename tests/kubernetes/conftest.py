"""Fixtures: one control plane per session, and one namespace per test."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from epp.kubernetes.access import connect
from epp.kubernetes.client import Client
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.namespace import Namespace

_NUMBERS = itertools.count(1)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the picker's event loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def plane(control_plane_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), users={"stranger": (), "scraper": ()}) as running:
        yield running


@pytest.fixture
def namespace(plane: ControlPlane) -> Namespace:
    """An empty namespace. Its service account has the rights that the documentation grants to a picker."""
    made = Namespace(plane, f"models-{next(_NUMBERS)}")
    made.create()
    return made


@pytest.fixture
def kubeconfig(plane: ControlPlane, namespace: Namespace) -> Path:
    """The kubeconfig of the picker's service account."""
    return plane.kubeconfig(namespace.picker_token)


@pytest_asyncio.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    """The picker's client, connected directly to the API server."""
    async with connect(str(kubeconfig)) as connected:
        yield connected
