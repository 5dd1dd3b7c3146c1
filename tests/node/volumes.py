"""A pod's volumes as folders of the machine, written from the API server's objects as the kubelet does."""

import base64
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lightkube import ApiError, AsyncClient
from lightkube.models.authentication_v1 import BoundObjectReference, TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import (
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
    ServiceAccountToken,
)

from tests.node import linux
from tests.node.environment import field_value
from tests.node.network import Subnet
from tests.node.objects import DownwardVolume, MapVolume, Pod, Projected, Projection, TokenSource, Volume


class VolumeError(Exception):
    """A volume is not available yet. Kubernetes calls this FailedMount."""


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int


class Store:
    """ConfigMaps and Secrets of the API server."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def config_map(self, namespace: str, name: str) -> dict[str, bytes] | None:
        try:
            found = await self.client.get(ConfigMap, name, namespace=namespace)
        except ApiError as error:
            _raise_unless_absent(error)
            return None
        text = {key: value.encode() for key, value in (found.data or {}).items()}
        return text | {key: base64.b64decode(value) for key, value in (found.binaryData or {}).items()}

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        try:
            found = await self.client.get(Secret, name, namespace=namespace)
        except ApiError as error:
            _raise_unless_absent(error)
            return None
        return {key: base64.b64decode(value) for key, value in (found.data or {}).items()}


class Volumes:
    """The volumes of one pod. The agent keeps this pod's volumes in `folder`."""

    def __init__(self, pod: Pod, folder: Path, store: Store, subnet: Subnet) -> None:
        self._pod = pod
        self._folder = folder
        self._store = store
        self._subnet = subnet
        self._tokens: dict[str, tuple[bytes, float]] = {}
        self._written: dict[str, dict[str, File]] = {}
        self.address = ""

    async def set_up(self) -> dict[str, Path]:
        """Set up all volumes and return their folders by name. Raise VolumeError if one is not available."""
        return {volume.name: await self._set_up(volume) for volume in self._pod.spec.volumes}

    async def refresh(self) -> None:
        """Rewrite volumes whose objects have changed in the API server, and tokens that are about to expire."""
        for volume in self._pod.spec.volumes:
            await self._write(volume)

    def remove(self) -> None:
        for volume in self._pod.spec.volumes:
            if volume.empty_dir and volume.empty_dir.medium == "Memory":
                path = self._folder / volume.name
                if path.is_mount():
                    linux.detach(str(path))
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _set_up(self, volume: Volume) -> Path:
        if volume.persistent_volume_claim:
            path = await self._claim_folder(volume.persistent_volume_claim.claim_name)
        else:
            path = self._folder / volume.name
            path.mkdir(parents=True, exist_ok=True)
            if volume.empty_dir:
                self._make_empty(path, volume.empty_dir.medium)
            elif not await self._write(volume):
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}": not a kind this node knows')
        self._give_to_group(path)
        return path

    def _make_empty(self, path: Path, medium: str) -> None:
        if medium == "Memory" and not path.is_mount():
            linux.mount("tmpfs", str(path), "tmpfs")
        path.chmod(0o777)

    async def _claim_folder(self, claim: str) -> Path:
        namespace = self._pod.metadata.namespace
        found = await self._store.client.get(PersistentVolumeClaim, claim, namespace=namespace)
        if not found.spec or not found.spec.volumeName:
            raise VolumeError(f'persistentvolumeclaim "{claim}" not bound')
        volume = await self._store.client.get(PersistentVolume, found.spec.volumeName)
        if not volume.spec or not volume.spec.hostPath:
            raise VolumeError(f'persistentvolume "{found.spec.volumeName}" has no hostPath')
        return Path(volume.spec.hostPath.path)

    def _give_to_group(self, root: Path) -> None:
        """Apply fsGroup: give the group all files, old and future ones, and let it do what the owner may."""
        group = self._pod.spec.security_context.fs_group
        if group is None:
            return
        for path in (root, *root.rglob("*")):
            os.chown(path, -1, group, follow_symlinks=False)
            if path.is_symlink():
                continue
            mode = path.stat().st_mode
            path.chmod(mode | (0o2770 if path.is_dir() else (mode & 0o700) >> 3))

    async def _write(self, volume: Volume) -> bool:
        """Write a volume's files if they changed. Return False for a volume without objects of the API server."""
        files = await self._files(volume)
        if files is None:
            return False
        if self._written.get(volume.name) != files:
            write_atomically(self._folder / volume.name, files)
            self._give_to_group(self._folder / volume.name)
            self._written[volume.name] = files
        return True

    async def _files(self, volume: Volume) -> dict[str, File] | None:
        if volume.config_map:
            return await self._map_files(volume.config_map, "configmap", volume.config_map.default_mode)
        if volume.secret:
            return await self._map_files(volume.secret, "secret", volume.secret.default_mode)
        if volume.downward_api:
            return self._field_files(volume.downward_api, volume.downward_api.default_mode)
        if volume.projected:
            return await self._projected_files(volume.projected)
        return None

    async def _projected_files(self, projected: Projected) -> dict[str, File]:
        files: dict[str, File] = {}
        for source in projected.sources:
            files |= await self._source_files(source, projected.default_mode)
        return files

    async def _source_files(self, source: Projection, mode: int) -> dict[str, File]:
        if source.config_map:
            return await self._map_files(source.config_map, "configmap", mode)
        if source.secret:
            return await self._map_files(source.secret, "secret", mode)
        if source.downward_api:
            return self._field_files(source.downward_api, mode)
        if source.service_account_token:
            token = await self._token(source.service_account_token)
            return {source.service_account_token.path: File(token, self._token_mode())}
        raise VolumeError("a projected volume has a source that this node doesn't know")

    def _token_mode(self) -> int:
        """Return the token's mode: with fsGroup the group reads it, else everyone must be able to."""
        return 0o600 if self._pod.spec.security_context.fs_group is not None else 0o644

    async def _map_files(self, wanted: MapVolume, kind: str, mode: int) -> dict[str, File]:
        read = self._store.config_map if kind == "configmap" else self._store.secret
        name = wanted.name or wanted.secret_name
        found = await read(self._pod.metadata.namespace, name)
        if found is None:
            if wanted.optional:
                return {}
            raise VolumeError(f'{kind} "{name}" not found')
        if not wanted.items:
            return {key: File(value, mode) for key, value in found.items()}
        missing = [item.key for item in wanted.items if item.key not in found]
        if missing and not wanted.optional:
            raise VolumeError(f"{kind} references non-existent config key: {missing[0]}")
        return {i.path: File(found[i.key], i.mode or mode) for i in wanted.items if i.key in found}

    def _field_files(self, wanted: DownwardVolume, mode: int) -> dict[str, File]:
        files = {}
        for item in wanted.items:
            if item.field_ref is None:
                raise VolumeError(f"{item.path}: this node knows no resourceFieldRef")
            value = field_value(self._pod, item.field_ref, self.address, self._subnet)
            files[item.path] = File(value.encode(), item.mode or mode)
        return files

    async def _token(self, source: TokenSource) -> bytes:
        """Return a token bound to the pod. Renew it when a fifth of its lifetime is left."""
        token, renewal = self._tokens.get(source.path, (b"", 0.0))
        if time.time() < renewal:
            return token
        metadata = self._pod.metadata
        spec = TokenRequestSpec(
            audiences=[source.audience] if source.audience else [],
            expirationSeconds=source.expiration_seconds,
            boundObjectRef=BoundObjectReference(apiVersion="v1", kind="Pod", name=metadata.name, uid=metadata.uid),
        )
        account = self._pod.spec.service_account_name or "default"
        answer = await self._store.client.create(
            ServiceAccountToken(metadata=ObjectMeta(), spec=spec), account, namespace=metadata.namespace
        )
        assert answer.status
        assert answer.status.token
        expiry = answer.status.expirationTimestamp
        lifetime = (expiry if isinstance(expiry, datetime) else datetime.fromisoformat(str(expiry))).timestamp()
        token = answer.status.token.encode()
        self._tokens[source.path] = (token, time.time() + 0.8 * (lifetime - time.time()))
        return token


def write_atomically(folder: Path, files: Mapping[str, File]) -> None:
    """Replace all files at once: readers see all old files or all new ones, because the link `..data` is renamed.

    The layout is the kubelet's: the first part of each path is a link through `..data`.
    """
    fresh = folder / f"..{uuid.uuid4().hex}"
    fresh.mkdir()
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    link = folder / "..data"
    old = link.resolve() if link.is_symlink() else None
    (folder / "..data_tmp").symlink_to(fresh.name)
    (folder / "..data_tmp").rename(link)
    names = {name.split("/")[0] for name in files}
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if old is not None:
        shutil.rmtree(old)


def _raise_unless_absent(error: ApiError) -> None:
    if error.status.code != 404:
        raise error
