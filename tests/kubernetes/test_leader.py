"""Test the election of a leader by a lease in a real API server."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from epp.kubernetes.access import connect
from epp.kubernetes.leader import LeaderElection, LeaseTimes, lease_name
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.gate import Gate
from tests.kubernetes.namespace import Namespace
from tests.kubernetes.running_discovery import eventually, running
from tests.live import PATIENCE_S

pytestmark = pytest.mark.slow

NAME = lease_name("models", "pool")
TIMES = LeaseTimes(duration_s=2.0, renew_deadline_s=1.5, retry_period_s=0.2)


class Candidate:
    """A candidate whose `gate` can cut it off from the API server, and whose `work` can be cancelled."""

    def __init__(self, election: LeaderElection, gate: Gate, work: "asyncio.Task[None]") -> None:
        self.election = election
        self.gate = gate
        self.work = work


@asynccontextmanager
async def candidates(
    plane: ControlPlane, namespace: Namespace, count: int, changes: list[tuple[str, bool]]
) -> AsyncIterator[list[Candidate]]:
    """Run `count` candidates, of which at most one leads at a time.

    Append each start (True) and end (False) of leading to `changes`. On a busy machine, an end is told late.
    """
    made: list[Candidate] = []
    at_once: list[int] = []
    async with AsyncExitStack() as stack:
        for i in range(count):
            name = f"epp-{i}"
            gate = await stack.enter_async_context(Gate(plane.port))
            client = await stack.enter_async_context(connect(str(plane.kubeconfig(namespace.picker_token, gate.url))))

            def changed(leads: bool, name: str = name) -> None:
                changes.append((name, leads))
                at_once.append(len(leaders(made)))

            election = LeaderElection(client, NAME, namespace.name, name, changed, TIMES)
            work = await stack.enter_async_context(running(election.run()))
            made.append(Candidate(election, gate, work))
        yield made
    assert max(at_once) <= 1


def leaders(some: list[Candidate]) -> list[Candidate]:
    return [candidate for candidate in some if candidate.election.is_leader]


@pytest.mark.parametrize("cut_off", [Gate.shut, Gate.freeze])
async def test_another_of_three_leads_when_the_leader_is_cut_off(
    plane: ControlPlane, namespace: Namespace, cut_off: Callable[[Gate], None]
) -> None:
    changes: list[tuple[str, bool]] = []
    async with candidates(plane, namespace, 3, changes) as three:
        await eventually(lambda: len(leaders(three)) == 1)
        (first,) = leaders(three)
        spec = namespace.lease(NAME)
        assert spec["holderIdentity"] == changes[0][0]
        assert spec["leaseDurationSeconds"] == 2
        assert spec.get("leaseTransitions", 0) == 0

        cut_off(first.gate)
        await eventually(lambda: len(changes) == 3)
        (second,) = leaders(three)
        assert second is not first
        (ended,) = [name for name, leads in changes[1:] if not leads]
        (began,) = [name for name, leads in changes[1:] if leads]
        assert ended == changes[0][0] != began
        assert namespace.lease(NAME)["leaseTransitions"] == 1

        first.gate.open()
        await eventually(lambda: first.election.holder == began)
        assert leaders(three) == [second]


async def test_another_candidate_takes_a_released_lease_at_once(plane: ControlPlane, namespace: Namespace) -> None:
    changes: list[tuple[str, bool]] = []
    async with candidates(plane, namespace, 2, changes) as two:
        await eventually(lambda: len(leaders(two)) == 1)
        (first,) = leaders(two)
        acquired_at = namespace.lease(NAME)["acquireTime"]
        first.election.resign()
        await first.work
        await eventually(lambda: len(changes) == 3)
        assert changes[1] == (changes[0][0], False)
        (second,) = leaders(two)
        assert second is not first
        assert namespace.lease(NAME)["acquireTime"] > acquired_at
        second.work.cancel()
        await eventually(lambda: not namespace.lease(NAME).get("holderIdentity"))


async def test_the_leader_leads_again_after_a_restart_of_the_api_server(
    plane: ControlPlane, namespace: Namespace
) -> None:
    changes: list[tuple[str, bool]] = []
    async with candidates(plane, namespace, 1, changes) as (only,):
        await eventually(lambda: only.election.is_leader)
        plane.end("kube-apiserver")
        await eventually(lambda: not only.election.is_leader)
        await asyncio.to_thread(plane.start_api_server)
        await eventually(lambda: only.election.is_leader)
        assert [leads for _, leads in changes] == [True, False, True]
        assert namespace.lease(NAME).get("leaseTransitions", 0) == 0


async def test_a_renewal_keeps_the_labels_that_others_write_on_the_lease(
    plane: ControlPlane, namespace: Namespace
) -> None:
    async with candidates(plane, namespace, 1, []) as (only,):
        await eventually(lambda: only.election.is_leader)
        for number in range(5):
            namespace.label_lease(NAME, {"number": str(number)})
        renewed_at = namespace.lease(NAME)["renewTime"]
        await eventually(lambda: namespace.lease(NAME)["renewTime"] > renewed_at)
        assert namespace.lease_labels(NAME) == {"number": "4"}
        assert only.election.is_leader


async def test_the_picker_and_a_kubernetes_component_elect_one_leader(
    plane: ControlPlane, namespace: Namespace
) -> None:
    """The scheduler elects its leader with the code that pickers written in Go use."""
    flags = (
        "--leader-elect",
        f"--leader-elect-resource-name={NAME}",
        f"--leader-elect-resource-namespace={namespace.name}",
        "--leader-elect-lease-duration=2s",
        "--leader-elect-renew-deadline=1500ms",
        "--leader-elect-retry-period=200ms",
    )
    changes: list[tuple[str, bool]] = []
    plane.start_scheduler(*flags)
    await eventually(lambda: bool(namespace.lease(NAME).get("holderIdentity")))
    async with candidates(plane, namespace, 1, changes) as (ours,):
        await eventually(lambda: ours.election.holder == namespace.lease(NAME)["holderIdentity"])
        assert not changes
        plane.end("kube-scheduler")
        await eventually(lambda: ours.election.is_leader)
        assert namespace.lease(NAME)["leaseTransitions"] == 1

        plane.start_scheduler(*flags)
        assert namespace.lease(NAME)["holderIdentity"] == "epp-0"
        ours.work.cancel()
        await eventually(lambda: namespace.lease(NAME).get("holderIdentity", "epp-0") != "epp-0")
    plane.end("kube-scheduler")


@contextmanager
def candidate_process(kubeconfig: Path, namespace: str, identity: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "tests.kubernetes.candidate", str(kubeconfig), namespace, identity]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                # A stopped process must continue before it can end.
                os.kill(process.pid, signal.SIGCONT)
                process.kill()


async def test_another_process_leads_when_the_leader_is_killed_or_ends(kubeconfig: Path, namespace: Namespace) -> None:
    def holder() -> str:
        held: str = namespace.lease(NAME).get("holderIdentity", "")
        return held

    with (
        candidate_process(kubeconfig, namespace.name, "a") as a,
        candidate_process(kubeconfig, namespace.name, "b") as b,
        candidate_process(kubeconfig, namespace.name, "c") as c,
    ):
        processes = {"a": a, "b": b, "c": c}
        await eventually(lambda: holder() != "")
        first = holder()
        processes[first].kill()
        await eventually(lambda: holder() not in {"", first})
        second = holder()
        processes[second].terminate()
        await eventually(lambda: holder() not in {"", first, second})
        third = holder()
        processes[third].terminate()
        await eventually(lambda: holder() == "")
        assert [processes[name].wait(timeout=PATIENCE_S) for name in (second, third)] == [0, 0]


async def test_a_leader_paused_past_the_deadline_no_longer_leads(plane: ControlPlane, namespace: Namespace) -> None:
    changes: list[tuple[str, bool]] = []
    async with candidates(plane, namespace, 1, changes) as (only,):
        await eventually(lambda: only.election.is_leader)
        # Block the whole process, as if it were stopped.
        time.sleep(TIMES.renew_deadline_s)  # noqa: ASYNC251
        assert not only.election.is_leader
        await eventually(lambda: only.election.is_leader)
