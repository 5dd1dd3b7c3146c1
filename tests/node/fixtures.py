"""A cluster for the session, where the machine allows one."""

import contextlib
from collections.abc import Generator, Iterator

import pytest

from tests.helm.binaries import MissingToolError, tool
from tests.kubernetes.binaries import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, NoControlPlaneError, command_of
from tests.node.cluster import Cluster, running_cluster
from tests.node.network import NetworkError, check_isolation

_PARTS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)
_RUNNING: list[Cluster] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what the tests run before any of them does: a first build takes longer than a test may."""
    if any("cluster" in getattr(item, "fixturenames", ()) for item in session.items):
        with contextlib.suppress(NoControlPlaneError):
            for part in _PARTS:
                command_of(part)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        for part in _PARTS:
            command_of(part)
        check_isolation()
        tool("kubectl")
    except (NoControlPlaneError, NetworkError, MissingToolError) as error:
        pytest.skip(f"no cluster here: {error}")
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        _RUNNING.append(running)
        yield running
        _RUNNING.clear()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty one."""
    with cluster.namespace() as name:
        yield name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the pods have said is part of a failed test's report."""
    report = yield
    if report.when == "call" and report.failed and _RUNNING and "cluster" in getattr(item, "fixturenames", ()):
        report.sections.append(("cluster", _RUNNING[0].report(call.start)))
    return report
