"""The node: its object, its Lease, and the pods that the scheduler binds to it."""

import asyncio
import itertools
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
from lightkube import ApiError
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node as NodeResource
from lightkube.resources.core_v1 import NodeStatus as NodeStatusResource
from lightkube.resources.core_v1 import Pod as PodResource
from lightkube.types import PatchType

from tests.kubernetes.binaries import kubernetes_version
from tests.node.events import now
from tests.node.list_watch import list_and_watch
from tests.node.objects import Pod, to_pod
from tests.node.pod import Node, PodLife

logger = logging.getLogger("agent")

# The most pods at once: the subnet has 253 addresses for them.
PODS = 250
_LEASES = "kube-node-lease"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
_STARTED = now()
_RENEWAL_S = 5.0
# More than the machine has, so that every pod of a test can be scheduled. Nothing limits a process's real use.
_CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": str(PODS)}


async def register(node: Node, port: int) -> None:
    """Create the node object and report its status. `port` is that of the node's own API, for logs and exec."""
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": _ARCHITECTURE}
    try:
        await node.client.create(NodeResource(metadata=ObjectMeta(name=node.name, labels=labels)))
    except ApiError as error:
        if error.status.code != 409:
            raise
    await _report(node, port)


async def keep_alive(node: Node, port: int) -> None:
    """Renew the Lease and the Ready condition until cancelled."""
    while True:
        try:
            await _renew(node)
            await _report(node, port)
        except httpx2.HTTPError as error:
            logger.info("node %s: %s", node.name, error)
        await asyncio.sleep(_RENEWAL_S)


async def _renew(node: Node) -> None:
    spec = LeaseSpec(holderIdentity=node.name, leaseDurationSeconds=40, renewTime=datetime.now(UTC))
    lease = Lease(metadata=ObjectMeta(name=node.name, namespace=_LEASES), spec=spec)
    await node.client.apply(lease, field_manager="agent", force=True)


async def _report(node: Node, port: int) -> None:
    moment = now()
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": moment}
    status = {
        "capacity": _CAPACITY,
        "allocatable": _CAPACITY,
        "conditions": [condition | {"message": "the agent runs pods", "lastTransitionTime": _STARTED}],
        "addresses": [
            {"type": "InternalIP", "address": node.subnet.gateway},
            {"type": "Hostname", "address": node.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            **dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), "test"),
            "containerRuntimeVersion": "headroom://processes",
            "kubeletVersion": f"v{kubernetes_version()}",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": _ARCHITECTURE,
        },
    }
    await node.client.patch(NodeStatusResource, node.name, {"status": status}, patch_type=PatchType.STRATEGIC)


class Pods:
    """The pods that run on the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lives: dict[str, PodLife] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.cycle(range(PODS))

    def find(self, namespace: str, name: str) -> PodLife | None:
        found = (life for life in self._lives.values() if life.pod.metadata.name == name)
        return next((life for life in found if life.pod.metadata.namespace == namespace), None)

    async def run(self) -> None:
        """Start, update and delete the pods bound to the node, until cancelled."""
        async for bound in list_and_watch(self._node.client, PodResource, {"spec.nodeName": self._node.name}):
            self._update({item.metadata.uid: item for item in bound.values()})

    def _update(self, bound: Mapping[str, Any]) -> None:
        for uid, item in bound.items():
            if uid not in self._lives:
                self._take(to_pod(item))
            elif item.metadata.deletionTimestamp:
                seconds = item.metadata.deletionGracePeriodSeconds or 0
                self._lives[uid].delete(float(seconds))
        for uid in self._lives.keys() - bound.keys():
            self._lives[uid].delete(0.0)

    def _take(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        used = {life.number for life in self._lives.values()}
        number = next(number for number in self._numbers if number not in used)
        life = self._lives[uid] = PodLife(pod, self._node, number)
        if pod.metadata.deletion_timestamp:
            life.delete(float(pod.metadata.deletion_grace_period_seconds or 0))
        task = self._tasks[uid] = asyncio.create_task(life.run())
        task.add_done_callback(lambda done: self._forget(uid, done))

    def _forget(self, uid: str, done: asyncio.Task[None]) -> None:
        life = self._lives.pop(uid)
        del self._tasks[uid]
        if not done.cancelled() and (error := done.exception()):
            logger.error("pod %s", life.pod.metadata.name, exc_info=error)
