"""A container's life on the node: start, probes, restarts, end, and status."""

import asyncio
import dataclasses
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2

from tests.node.environment import ConfigurationError
from tests.node.events import now
from tests.node.images import ImageError, find_image
from tests.node.logs import write_log
from tests.node.objects import Container, Probe
from tests.node.probes import Target, attempt, verdicts
from tests.node.process import Process, StartError, finish, start
from tests.node.process_spec import ProcessSpec

# Restart delays. The kubelet uses 10 s and 5 min; tests need shorter ones.
_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 4.0


class Record(Protocol):
    """A function that records an event of this pod."""

    def __call__(self, reason: str, message: str, container: str = "", warning: bool = False) -> Awaitable[None]: ...


@dataclass(frozen=True)
class PodContext:
    """The part of a pod that a container needs.

    `make` returns the spec of a container's process. `changed` is called after each change of a container's status.
    """

    address: Callable[[], str]
    folder: Path
    restart_policy: str
    grace_s: float
    make: Callable[[Container], Awaitable[ProcessSpec]]
    record: Record
    changed: Callable[[], None]


class ContainerLife:
    """A container from its first start to its end: `run` lives it, `end` stops it."""

    def __init__(self, container: Container, pod: PodContext) -> None:
        self.container = container
        self._pod = pod
        self._state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self._last: dict[str, Any] = {}
        self._stop = asyncio.Event()
        self._id = ""
        self._log_task: asyncio.Task[None] | None = None
        self.finished = False
        self.restarts = 0
        # The number of the run that the status shows: the next one is started before the status says so.
        self._newest_run = 0
        self.ready = False
        self.started = asyncio.Event()
        self.process: Process | None = None
        self.spec: ProcessSpec | None = None

    def _ending(self) -> bool:
        return self._stop.is_set()

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last run, or None while the container is not terminated."""
        return self._state["terminated"]["exitCode"] if "terminated" in self._state else None

    @property
    def begun(self) -> bool:
        """True if a process of this container has ever run."""
        return bool(self._id)

    def log(self, previous: bool = False) -> Path:
        """Return the log of this run, or of the previous one. Between two runs both are the run that ended last."""
        return self._log_of_run(self._newest_run - (previous and "waiting" not in self._state))

    def _log_of_run(self, number: int) -> Path:
        return self._pod.folder / "logs" / self.container.name / f"{number}.log"

    def status(self) -> dict[str, Any]:
        return {
            "name": self.container.name,
            "image": self.container.image,
            "imageID": f"headroom://{self.container.image}" if self._id else "",
            "containerID": f"headroom://{self._id}" if self._id else "",
            "ready": self.ready,
            "started": self.started.is_set(),
            "restartCount": self.restarts,
            "state": self._state,
            "lastState": self._last,
        }

    async def run(self) -> None:
        """Run the container, with restarts, until it has ended for good."""
        await self._run()
        self.finished = True
        self._pod.changed()

    async def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._ending():
            code = await self._run_once()
            policy = self._pod.restart_policy
            if self._ending() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return
            await self._back_off(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def end(self, grace_s: float) -> None:
        """Run the preStop hook, send SIGTERM, and send SIGKILL after `grace_s`. Return when no process is left."""
        self._stop.set()
        if self.process is not None:
            await self._record("Killing", f"Stopping container {self.container.name}")
            await self._end_process(grace_s)

    async def execute(self, command: list[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a command in the container. Raise StartError if the command can't start."""
        process = await start(self.exec_spec(command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        return await finish(process, timeout_s)

    def exec_spec(self, command: list[str]) -> ProcessSpec:
        """Return the spec of a process in the container's namespaces, as the same user.

        Raise StartError when the container doesn't run.
        """
        if self.process is None or self.spec is None:
            raise StartError(f"container {self.container.name} is not running")
        return dataclasses.replace(self.spec, argv=command, join_pid=self.process.pid, mounts=[])

    async def _run_once(self) -> int:
        """Run the container once and return its exit code."""
        await self._pull()
        if self._ending():
            return 0
        started_at = now()
        try:
            self.spec = await self._make_spec()
            self.process = await self._start(self.spec)
        except StartError as error:
            self._newest_run = self.restarts
            await self._record("Failed", f"Error: failed to start container: {error}", warning=True)
            return self._terminate(128, "StartError", started_at, str(error))
        if self._ending():
            self.process.send(signal.SIGKILL)
        self._newest_run = self.restarts
        self._set({"running": {"startedAt": started_at}})
        watching = asyncio.create_task(self._watch())
        try:
            code = await self.process.wait()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            self.process.send(signal.SIGKILL)
            if self._log_task:
                await self._log_task
            self.process = None
        return self._terminate(code, "Error" if code else "Completed", started_at)

    async def _pull(self) -> None:
        """Return at once if the image is known, else when the container is to end: no image appears later."""
        image = self.container.image
        try:
            find_image(image)
        except ImageError as error:
            message = f'Failed to pull image "{image}": {error}'
            await self._record("Pulling", f'Pulling image "{image}"')
            await self._record("Failed", message, warning=True)
            await self._record("Failed", "Error: ErrImagePull", warning=True)
            self._set({"waiting": {"reason": "ErrImagePull", "message": message}})
            await asyncio.sleep(2 * _FIRST_DELAY_S)
            await self._record("BackOff", f'Back-off pulling image "{image}"', warning=True)
            self._set({"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}})
            await self._stop.wait()
            return
        await self._record("Pulled", f'Container image "{image}" already present on machine')

    async def _make_spec(self) -> ProcessSpec:
        """Return the process's spec. Retry until the ConfigMaps and Secrets that it refers to exist."""
        while True:
            try:
                return await self._pod.make(self.container)
            except (ConfigurationError, httpx2.HTTPError) as error:
                if self._ending():
                    raise StartError("ended before it was configured") from error
                self._set({"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}})
                await self._record("Failed", f"Error: {error}", warning=True)
                await asyncio.sleep(2 * _FIRST_DELAY_S)

    async def _start(self, spec: ProcessSpec) -> Process:
        name = self.container.name
        log = self._log_of_run(self.restarts)
        log.parent.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()
        # The container's user must own the pipe, because a process may open /dev/stdout again.
        os.fchown(writer, spec.uid, spec.gid)
        self._log_task = asyncio.create_task(write_log(reader, log))
        try:
            await self._record("Created", f"Created container: {name}")
            process = await start(spec, stdout=writer, stderr=writer)
        finally:
            os.close(writer)
        self._id = hashlib.sha256(f"{log}".encode()).hexdigest()
        await self._record("Started", f"Started container {name}")
        return process

    def _terminate(self, code: int, reason: str, started_at: str, message: str = "") -> int:
        self.ready = False
        self.started.clear()
        ended = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": now(), "message": message}
        if self._id:
            ended["containerID"] = f"headroom://{self._id}"
        self._set({"terminated": ended})
        return code

    async def _back_off(self, delay_s: float) -> None:
        """Wait before a restart. The first restart is immediate, as with the kubelet."""
        self._last = self._state
        if self.restarts:
            name = self.container.name
            message = f"back-off {delay_s:g}s restarting failed container={name}"
            await self._record("BackOff", f"Back-off restarting failed container {name}", warning=True)
            self._set({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stop.wait()
        self.restarts += 1

    async def _watch(self) -> None:
        """Run the startup probe, then the readiness and liveness probes."""
        container = self.container
        target = Target(container, self._pod.address(), self.execute)
        if container.startup_probe and not await self._probe_startup(container.startup_probe, target):
            return
        self.started.set()
        self.ready = container.readiness_probe is None
        self._pod.changed()
        async with asyncio.TaskGroup() as group:
            if container.readiness_probe:
                group.create_task(self._probe_readiness(container.readiness_probe, target))
            if container.liveness_probe:
                group.create_task(self._probe_liveness(container.liveness_probe, target, "liveness"))

    async def _probe_startup(self, probe: Probe, target: Target) -> bool:
        async for well in verdicts(probe, target, self._unhealthy("Startup")):
            if not well:
                await self._kill("startup", probe)
            return well
        return False

    async def _probe_readiness(self, probe: Probe, target: Target) -> None:
        async for well in verdicts(probe, target, self._unhealthy("Readiness")):
            if well != self.ready:
                self.ready = well
                self._pod.changed()

    async def _probe_liveness(self, probe: Probe, target: Target, kind: str) -> None:
        async for well in verdicts(probe, target, self._unhealthy("Liveness")):
            if not well and not self._ending():
                await self._kill(kind, probe)
                return

    def _unhealthy(self, kind: str) -> Callable[[str], Awaitable[None]]:
        async def record(failure: str) -> None:
            if not self._ending():
                await self._record("Unhealthy", f"{kind} probe failed: {failure}", warning=True)

        return record

    async def _kill(self, kind: str, probe: Probe) -> None:
        await self._record("Killing", f"Container {self.container.name} failed {kind} probe, will be restarted")
        own = probe.termination_grace_period_seconds
        await self._end_process(self._pod.grace_s if own is None else own)

    async def _end_process(self, grace_s: float) -> None:
        process = self.process
        if process is None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await self._pre_stop(grace_s)
                process.send(signal.SIGTERM)
                await process.wait()
        except TimeoutError:
            process.send(signal.SIGKILL)
            await process.wait()

    async def _pre_stop(self, grace_s: float) -> None:
        hook = self.container.lifecycle.pre_stop
        if hook is None:
            return
        if hook.sleep:
            await asyncio.sleep(hook.sleep.seconds)
            return
        failure = await attempt(hook, Target(self.container, self._pod.address(), self.execute), grace_s)
        if failure:
            await self._record("FailedPreStopHook", f"PreStopHook failed: {failure}", warning=True)

    def _set(self, state: dict[str, Any]) -> None:
        self._state = state
        self._pod.changed()

    async def _record(self, reason: str, message: str, warning: bool = False) -> None:
        await self._pod.record(reason, message, self.container.name, warning)
