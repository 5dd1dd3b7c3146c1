"""Events as `kubectl describe` shows them: one Event per pod, reason and message, with a count."""

import hashlib
import logging
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
from lightkube import AsyncClient
from lightkube.resources.core_v1 import Event
from lightkube.types import PatchType

from tests.node.objects import Pod

logger = logging.getLogger("agent")


def now() -> str:
    """Return the present time in the API's format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Recorder:
    """Writes the events of pods to the API server."""

    def __init__(self, client: AsyncClient, node: str) -> None:
        self._client = client
        self._node = node
        self._counts: dict[str, int] = {}

    async def record(self, pod: Pod, reason: str, message: str, container: str = "", warning: bool = False) -> None:
        """Record an event of a pod. Log API errors instead of raising: a lost event must not stop the pod."""
        metadata = pod.metadata
        field = f"spec.containers{{{container}}}" if container else ""
        digest = hashlib.sha256(f"{metadata.uid} {reason} {message} {field}".encode()).hexdigest()[:16]
        name = f"{metadata.name[:200]}.{digest}"
        count = self._counts[name] = self._counts.get(name, 0) + 1
        body: dict[str, Any] = {"count": count, "lastTimestamp": now()}
        try:
            if count > 1:
                await self._client.patch(Event, name, body, namespace=metadata.namespace, patch_type=PatchType.MERGE)
                return
            involved = {"apiVersion": "v1", "kind": "Pod", "name": metadata.name, "uid": metadata.uid}
            full = body | {
                "metadata": {"name": name, "namespace": metadata.namespace},
                "involvedObject": involved | {"namespace": metadata.namespace, "fieldPath": field},
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "firstTimestamp": body["lastTimestamp"],
                "source": {"component": "kubelet", "host": self._node},
            }
            await self._client.create(cast(Event, Event.from_dict(full)))
        except httpx2.HTTPError as error:
            # A namespace that is being deleted accepts no events.
            logger.info("event %s of %s: %s", reason, metadata.name, error)
