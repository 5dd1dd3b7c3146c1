"""A pod's life on the node: its volumes and network, its containers in order, its status and its end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.resources.core_v1 import Pod as PodResource
from lightkube.resources.core_v1 import PodStatus as PodStatusResource
from lightkube.types import PatchType

from tests.node import pod_status
from tests.node.container import ContainerLife, PodContext
from tests.node.environment import ConfigurationError, argv, capabilities, environment, expand, hostname, identity
from tests.node.events import Recorder, now
from tests.node.images import find_image, visible_folders
from tests.node.network import NetworkError, PodNetwork, Subnet, pod_network
from tests.node.objects import Container, Pod
from tests.node.process_spec import Mount, ProcessSpec
from tests.node.volumes import Store, VolumeError, Volumes

logger = logging.getLogger("agent")

_RETRY_S = 0.5
# Seconds between two refreshes of a pod's volumes. The kubelet takes a minute or more; tests need less.
_REFRESH_S = 2.0
# Seconds that the logs of ended containers have to be written.
_LOGS_END_S = 5.0


@dataclass(frozen=True)
class Node:
    """The parts that all pods of the node share. The pods keep their files in `folder`."""

    name: str
    folder: Path
    subnet: Subnet
    client: AsyncClient
    recorder: Recorder


class PodLife:
    """A pod from its first start until it is removed: `run` lives it, `delete` ends it."""

    def __init__(self, pod: Pod, node: Node, number: int) -> None:
        """Prepare the pod. `number` determines the pod's address."""
        self.pod = pod
        self._node = node
        self.number = number
        self._folder = node.folder / "pods" / pod.metadata.uid
        self._volumes = Volumes(pod, self._folder / "volumes", Store(node.client), node.subnet)
        self._paths: dict[str, Path] = {}
        self._network: PodNetwork | None = None
        self._initialized = not pod.spec.init_containers
        self._conditions: pod_status.Conditions = {
            c.type: (c.status, c.last_transition_time) for c in pod.status.conditions
        }
        self._start_time = pod.status.start_time or now()
        self._changed = asyncio.Event()
        self._deletion = asyncio.Event()
        self._grace_s = float("inf")
        self.init_containers = [self._life(container) for container in pod.spec.init_containers]
        self.containers = [self._life(container) for container in pod.spec.containers]

    def container(self, name: str) -> ContainerLife | None:
        found = (life for life in (*self.containers, *self.init_containers) if life.container.name == name)
        return next(found, None)

    def delete(self, grace_s: float) -> None:
        """End the pod within `grace_s` and remove it from the API server. A later call can only shorten the time."""
        if grace_s < self._grace_s:
            self._grace_s = grace_s
            self._deletion.set()

    async def run(self) -> None:
        """Run the pod until it is deleted and removed from the API server."""
        background = [asyncio.create_task(self._report_changes())]
        try:
            life = asyncio.create_task(self._live(background))
            life.add_done_callback(self._log_failure)
            await self._deletion.wait()
            await self._end(life)
            await self._cancel(*background)
            await self._persist(self._report)
            await self._persist(self._remove)
        finally:
            await self._cancel(*background)
            if self._network:
                self._network.close()
            self._volumes.remove()

    async def _live(self, background: list[asyncio.Task[None]]) -> None:
        self._changed.set()
        self._network = await self._until_done(self._make_network)
        self._volumes.address = self._network.address
        self._paths = await self._until_done(self._volumes.set_up)
        self._write_hosts()
        background.append(asyncio.create_task(self._refresh_volumes()))
        async with asyncio.TaskGroup() as group:
            for life in self.init_containers:
                if not await self._initialize(life, group):
                    return
            self._initialized = True
            for life in self.containers:
                group.create_task(life.run())

    async def _initialize(self, life: ContainerLife, group: asyncio.TaskGroup) -> bool:
        """Run an init container to its end; wait for a sidecar only until it has started."""
        running = group.create_task(life.run())
        if life.container.restart_policy == "Always":
            await life.started.wait()
            return True
        await running
        self._changed.set()
        return life.exit_code == 0

    async def _until_done(self, step: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        while True:
            try:
                return await step()
            except (VolumeError, NetworkError, httpx2.HTTPError) as error:
                reason = "FailedMount" if isinstance(error, VolumeError) else "FailedCreatePodSandBox"
                await self._record(reason, str(error), warning=True)
                await asyncio.sleep(_RETRY_S)

    async def _make_network(self) -> PodNetwork:
        return await pod_network(self._node.subnet, self.number)

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            # Files of a deleted ConfigMap or Secret stay, as with the kubelet.
            with suppress(VolumeError, httpx2.HTTPError):
                await self._volumes.refresh()

    def _life(self, container: Container) -> ContainerLife:
        spec = self.pod.spec
        policy = spec.restart_policy
        if container in spec.init_containers:
            policy = container.restart_policy or ("Never" if policy == "Never" else "OnFailure")
        return ContainerLife(
            container,
            PodContext(
                address=lambda: self._network.address if self._network else "",
                folder=self._folder,
                restart_policy=policy,
                grace_s=spec.termination_grace_period_seconds,
                make=self._process_spec,
                record=self._record,
                changed=self._changed.set,
            ),
        )

    async def _process_spec(self, container: Container) -> ProcessSpec:
        """Return the spec of the container's process. Raise ConfigurationError if the agent can't carry it out."""
        assert self._network
        if container.lifecycle.post_start:
            raise ConfigurationError("this node knows no postStart hooks")
        image = find_image(container.image)
        address, subnet = self._network.address, self._node.subnet
        env = await environment(self.pod, container, image, address, subnet, Store(self._node.client))
        user, group, groups = identity(self.pod, container, image)
        context = container.security_context
        scratch = self._folder / "scratch" / container.name
        scratch.mkdir(parents=True, exist_ok=True)
        return ProcessSpec(
            argv=argv(container, image, env),
            env=env,
            cwd=container.working_dir or image.cwd,
            uid=user,
            gid=group,
            groups=groups,
            capabilities=capabilities(container),
            no_new_privileges=not context.allow_privilege_escalation,
            hostname=hostname(self.pod),
            network=self._network.namespace,
            read_only_root=context.read_only_root_filesystem,
            scratch=str(scratch.resolve()),
            mounts=[*self._own_mounts(), *self._mounts(container, env)],
        )

    def _own_mounts(self) -> list[Mount]:
        folder = (self._folder / "etc").resolve()
        return [
            *(Mount(path, path, read_only=True) for path in visible_folders()),
            *(Mount(str(folder / name), f"/etc/{name}", read_only=True) for name in ("hosts", "resolv.conf")),
        ]

    def _mounts(self, container: Container, env: dict[str, str]) -> list[Mount]:
        mounts = []
        claims = {v.name: v.persistent_volume_claim for v in self.pod.spec.volumes if v.persistent_volume_claim}
        for wanted in container.volume_mounts:
            path = self._paths[wanted.name]
            below = wanted.sub_path or expand(wanted.sub_path_expr, env)
            if below and not (path / below).exists():
                (path / below).mkdir(parents=True)
                (path / below).chmod(path.stat().st_mode & 0o7777)
            read_only = wanted.read_only or (wanted.name in claims and claims[wanted.name].read_only)
            mounts.append(Mount(str((path / below).resolve()), wanted.mount_path, read_only))
        return mounts

    def _write_hosts(self) -> None:
        assert self._network
        folder = self._folder / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        own = f"{self._network.address}\t{hostname(self.pod)}\n"
        (folder / "hosts").write_text(f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own}")
        zones = " ".join((f"{self.pod.metadata.namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"))
        (folder / "resolv.conf").write_text(f"nameserver {self._node.subnet.dns}\nsearch {zones}\noptions ndots:5\n")

    async def _end(self, life: asyncio.Task[None]) -> None:
        """End the containers. Sidecars, which are among the init containers, end last."""
        await asyncio.gather(*(self._end_container(container) for container in self.containers))
        await asyncio.gather(*(self._end_container(container) for container in reversed(self.init_containers)))
        if any(container.begun for container in (*self.containers, *self.init_containers)):
            await asyncio.wait((life,), timeout=_LOGS_END_S)
        await self._cancel(life)

    async def _end_container(self, container: ContainerLife) -> None:
        while True:
            grace_s = self._grace_s
            self._deletion.clear()
            ending = asyncio.create_task(container.end(grace_s))
            sooner = asyncio.create_task(self._deletion.wait())
            await asyncio.wait((ending, sooner), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await self._cancel(sooner)
                return
            await self._cancel(ending)

    async def _remove(self) -> None:
        metadata = self.pod.metadata
        try:
            found = await self._node.client.get(PodResource, metadata.name, namespace=metadata.namespace)
            # Another pod may have taken the name by now.
            if found.metadata and found.metadata.uid == metadata.uid:
                await self._node.client.delete(PodResource, metadata.name, namespace=metadata.namespace, grace_period=0)
        except ApiError as error:
            if error.status.code != 404:
                raise

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._persist(self._report)

    async def _persist(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeat the step until the API server has accepted it."""
        while True:
            try:
                await step()
            except httpx2.HTTPError as error:
                logger.info("pod %s: %s", self.pod.metadata.name, error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _report(self) -> None:
        metadata = self.pod.metadata
        body = {"metadata": {"uid": metadata.uid}, "status": self.status()}
        try:
            await self._node.client.patch(
                PodStatusResource, metadata.name, body, namespace=metadata.namespace, patch_type=PatchType.MERGE
            )
        except ApiError as error:
            # 404: the pod is gone. 409: another pod has this name.
            if error.status.code not in {404, 409}:
                raise

    def status(self) -> dict[str, Any]:
        """Return the API's PodStatus."""
        sidecars = pod_status.sidecars(self.init_containers)
        ready = self._initialized and all(life.ready for life in (*self.containers, *sidecars))
        truths = {
            "PodReadyToStartContainers": self._network is not None,
            "Initialized": self._initialized,
            "ContainersReady": ready,
            "Ready": ready,
        }
        pod_status.update(self._conditions, truths)
        phase = pod_status.phase(self._initialized, self.containers, self.init_containers, self.pod.spec.restart_policy)
        reasons = pod_status.reasons(phase == "Succeeded", self.containers, self.init_containers)
        address = self._network.address if self._network else None
        return {
            "phase": phase,
            "conditions": pod_status.with_reasons(self._conditions, reasons),
            "hostIP": self._node.subnet.gateway,
            "hostIPs": [{"ip": self._node.subnet.gateway}],
            "podIP": address,
            "podIPs": [{"ip": address}] if address else None,
            "startTime": self._start_time,
            "initContainerStatuses": [life.status() for life in self.init_containers] or None,
            "containerStatuses": [life.status() for life in self.containers],
        }

    async def _record(self, reason: str, message: str, container: str = "", warning: bool = False) -> None:
        await self._node.recorder.record(self.pod, reason, message, container, warning)

    def _log_failure(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()):
            logger.error("pod %s", self.pod.metadata.name, exc_info=error)

    @staticmethod
    async def _cancel(*tasks: asyncio.Task[Any]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
