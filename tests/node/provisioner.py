"""A storage provisioner for tests: each claim gets a folder of the machine, which outlives the pods that use it."""

import logging
import shutil
from pathlib import Path
from typing import Any

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.models.core_v1 import HostPathVolumeSource, ObjectReference, PersistentVolumeSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim
from lightkube.resources.storage_v1 import StorageClass

from tests.node.list_watch import list_and_watch

logger = logging.getLogger("agent")

PROVISIONER = "headroom.test/folder"
_BY = "pv.kubernetes.io/provisioned-by"


async def provision(client: AsyncClient, folder: Path) -> None:
    """Make a volume for each claim whose class names this provisioner, until cancelled."""
    async for claims in list_and_watch(client, PersistentVolumeClaim):
        for claim in list(claims.values()):
            if claim.status.phase == "Pending" and not claim.spec.volumeName and claim.spec.storageClassName:
                await _provide(client, folder, claim)


async def _provide(client: AsyncClient, folder: Path, claim: Any) -> None:
    name = f"pvc-{claim.metadata.uid}"
    path = folder / name
    try:
        kind = await client.get(StorageClass, claim.spec.storageClassName)
        if kind.provisioner != PROVISIONER:
            return
        path.mkdir(parents=True, exist_ok=True)
        reference = ObjectReference(
            kind="PersistentVolumeClaim",
            namespace=claim.metadata.namespace,
            name=claim.metadata.name,
            uid=claim.metadata.uid,
        )
        spec = PersistentVolumeSpec(
            capacity=claim.spec.resources.requests,
            accessModes=claim.spec.accessModes,
            persistentVolumeReclaimPolicy=kind.reclaimPolicy or "Delete",
            storageClassName=claim.spec.storageClassName,
            claimRef=reference,
            hostPath=HostPathVolumeSource(path=str(path.resolve())),
        )
        metadata = ObjectMeta(name=name, annotations={_BY: PROVISIONER})
        await client.create(PersistentVolume(metadata=metadata, spec=spec))
    except httpx2.HTTPError as error:
        # 409: the volume exists already. 404: the class does not exist, at least not yet.
        if not isinstance(error, ApiError) or error.status.code not in {404, 409}:
            logger.error("claim %s: %s", claim.metadata.name, error)


async def reclaim(client: AsyncClient) -> None:
    """Remove released volumes and their folders where the reclaim policy is Delete, until cancelled."""
    async for volumes in list_and_watch(client, PersistentVolume):
        for volume in list(volumes.values()):
            spec, annotations = volume.spec, volume.metadata.annotations or {}
            released = volume.status and volume.status.phase == "Released"
            if annotations.get(_BY) == PROVISIONER and released and spec.persistentVolumeReclaimPolicy == "Delete":
                shutil.rmtree(spec.hostPath.path, ignore_errors=True)
                try:
                    await client.delete(PersistentVolume, volume.metadata.name)
                except httpx2.HTTPError as error:
                    if not isinstance(error, ApiError) or error.status.code != 404:
                        logger.error("volume %s: %s", volume.metadata.name, error)
