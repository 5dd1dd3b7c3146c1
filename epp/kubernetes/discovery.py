"""Endpoints and objectives from Kubernetes, by watches of an InferencePool, its pods and its objectives."""

import asyncio
import logging

from epp.kubernetes.client import Client, Selection
from epp.kubernetes.objects import OBJECTIVES, PODS, POOLS, AnyPool, Objective, Pod
from epp.kubernetes.reflector import Reflector, WatchCounts
from epp.kubernetes.targets import PoolName, TargetPods, endpoints_of, priorities_of, target_of
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Endpoint

logger = logging.getLogger("headroom.epp.kubernetes")

# Least seconds between two updates of the pool, because a rollout is a burst of changes.
_PUBLISH_INTERVAL_S = 0.05


class Discovery:
    """Keeps the pool's endpoints equal to the ready pods of an InferencePool, or of a fixed target.

    While the API server is away the last known endpoints stay; when the InferencePool is deleted they go. `is_ready`
    says that the pods of the pool as it is now have been listed.
    """

    def __init__(self, client: Client, followed: PoolName | TargetPods, namespace: str, pool: Pool) -> None:
        self._client = client
        self._followed = followed
        self._namespace = namespace
        self._pool = pool
        self.objectives = Objectives()
        self._target: TargetPods | None = None
        self._pods: Reflector[Pod] | None = None
        self._pods_task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._published: tuple[Endpoint, ...] = ()
        self.counts = WatchCounts()
        self.publications = 0
        self.is_ready = False

    async def run(self) -> None:
        """Watch the pool and its pods until cancelled."""
        async with asyncio.TaskGroup() as group:
            if isinstance(self._followed, TargetPods):
                self._aim(self._followed, group)
            else:
                self._follow(self._followed, group)
            while True:
                await self._changed.wait()
                self._changed.clear()
                self._publish()
                await asyncio.sleep(_PUBLISH_INTERVAL_S)

    def _follow(self, name: PoolName, group: asyncio.TaskGroup) -> None:
        def pool_changed() -> None:
            found = pools.items.get(name.name)
            if found is None:
                logger.warning("there is no %s in namespace %s", name, self._namespace)
            self._aim(target_of(found) if found else None, group)

        def objectives_changed() -> None:
            self.objectives.replace(priorities_of(objectives.items.values(), name))
            logger.info("%d objectives of %s", len(self.objectives), name)

        one = Selection(self._namespace, fields=f"metadata.name={name.name}")
        pools: Reflector[AnyPool] = Reflector(self._client, POOLS[name.group], one, pool_changed, self.counts)
        every = Selection(self._namespace)
        objectives: Reflector[Objective] = Reflector(self._client, OBJECTIVES, every, objectives_changed, self.counts)
        group.create_task(pools.run())
        group.create_task(objectives.run())

    def _aim(self, target: TargetPods | None, group: asyncio.TaskGroup) -> None:
        """Adopt the pool's present target. Other labels mean other pods, which are listed from scratch."""
        before, self._target = self._target, target
        if target != before:
            logger.info("following %s", target or "no pods")
        if before is None or target is None or target.labels != before.labels:
            if self._pods_task is not None:
                self._pods_task.cancel()
            self._pods_task = self._pods = None
        if target is not None and self._pods is None:
            selection = Selection(self._namespace, labels=target.selector)
            self._pods = Reflector(self._client, PODS, selection, self._changed.set, self.counts)
            self._pods_task = group.create_task(self._pods.run())
        self._changed.set()

    def _publish(self) -> None:
        if self._target is None:
            self.is_ready = False
            self._replace(())
        elif self._pods is not None and self._pods.synced:
            self._replace(endpoints_of(self._pods.items.values(), self._target.ports))
            self.is_ready = True
        # Otherwise the pods of the new labels are not listed yet, and the old pods serve until then.

    def _replace(self, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints == self._published:
            return
        before, after = ({endpoint.address for endpoint in some} for some in (self._published, endpoints))
        self._pool.replace_endpoints(endpoints)
        self._published = endpoints
        self.publications += 1
        logger.info("%d endpoints: %d new, %d gone", len(after), len(after - before), len(before - after))
