"""List and watch the objects of a kind, and reconnect after errors."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from lightkube import AsyncClient
from lightkube.core.resource import NamespacedResource

logger = logging.getLogger("agent")

_PAUSE_S = 0.5


async def list_and_watch(
    client: AsyncClient, kind: type[Any], fields: dict[str, str] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of all namespaces by "namespace/name": once after the list, then after each change."""
    known: dict[str, Any] = {}
    scope: dict[str, Any] = {"fields": fields}
    if issubclass(kind, NamespacedResource):
        scope["namespace"] = "*"
    while True:
        try:
            listing = client.list(kind, **scope)
            known = {_key(item): item async for item in listing}
            yield known
            version = listing.resourceVersion
            async for change, item in client.watch(kind, resource_version=version, **scope):
                if change == "DELETED":
                    known.pop(_key(item), None)
                else:
                    known[_key(item)] = item
                yield known
        except httpx2.HTTPError as error:
            # The version is too old, or the server is away. A new list brings everything up to date.
            logger.info("watching %s: %s", kind.__name__, error)
            await asyncio.sleep(_PAUSE_S)


def _key(item: Any) -> str:
    return f"{item.metadata.namespace or ''}/{item.metadata.name}"
