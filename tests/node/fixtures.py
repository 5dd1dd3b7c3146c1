"""Fixtures: one cluster per session, where the machine allows it, and one namespace per test."""

from collections.abc import Generator, Iterator

import pytest

from tests.helm.binaries import MissingToolError, tool
from tests.node.cluster import Cluster, running_cluster
from tests.node.network import NetworkError, check_isolation

_RUNNING: list[Cluster] = []


@pytest.fixture(scope="session")
def cluster(control_plane_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        check_isolation()
        tool("kubectl")
    except (NetworkError, MissingToolError) as error:
        pytest.skip(f"no cluster here: {error}")
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        _RUNNING.append(running)
        yield running
        _RUNNING.clear()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new, empty namespace of the cluster."""
    with cluster.namespace() as name:
        yield name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the pods' logs and the cluster's state to a failed test's report."""
    report = yield
    if report.when == "call" and report.failed and _RUNNING and "cluster" in getattr(item, "fixturenames", ()):
        report.sections.append(("cluster", _RUNNING[0].report(call.start)))
    return report
