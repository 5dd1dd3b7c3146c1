"""Leader election among the replicas of a picker by a Lease, as Kubernetes' own components hold it.

The holder renews the lease every retry period. Another candidate takes the lease once it has seen the same record for
as long as that record is good; its write is conditional on the resourceVersion. No clock is compared with another: each
candidate measures by its own how long it has seen a record. A holder that can't renew stops leading at the renew
deadline, before any other may start.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from epp.kubernetes.client import Client
from epp.kubernetes.exceptions import ApiError, KubernetesError
from epp.kubernetes.objects import LEASES, Lease, LeaseSpec

logger = logging.getLogger("headroom.epp.leader")

_LONGEST_RELEASE_S = 5.0


def lease_name(namespace: str, pool: str) -> str:
    """Return the name of the lease that a pool's pickers share."""
    return f"epp-{namespace}-{pool}.gateway-api-inference-extension.sigs.k8s.io"


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds that a lease is good, that its holder tries to renew it, and between two tries."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0


class LeaderElection:
    """One candidate. `changed` is called with True when it starts to lead, and with False when it no longer does."""

    def __init__(
        self,
        client: Client,
        name: str,
        namespace: str,
        identity: str,
        changed: Callable[[bool], None] = lambda leads: None,
        times: LeaseTimes = LeaseTimes(),
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._changed = changed
        self._times = times
        self._leads_until = -math.inf
        self._reported = False
        self._seen = LeaseSpec()
        self._seen_at = -math.inf
        self._resigned = asyncio.Event()
        self.transitions = 0

    @property
    def is_leader(self) -> bool:
        """True if this candidate leads. False from the renew deadline on, even if this process was paused meanwhile."""
        return time.monotonic() < self._leads_until and not self._resigned.is_set()

    @property
    def holder(self) -> str:
        """The holder of the lease, as last seen; empty if nobody holds it."""
        return self._seen.holderIdentity or ""

    async def run(self) -> None:
        """Contend and lead, again and again, until resigned or cancelled; then give the lease back."""
        try:
            while not self._resigned.is_set():
                await self._attempt()
                self._report()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._resigned.wait(), self._pause_s())
        finally:
            await self._release()

    def resign(self) -> None:
        """End `run` soon. The process can still drain its streams while the next leader takes new ones."""
        self._resigned.set()

    async def _attempt(self) -> None:
        """Renew or acquire the lease, within the time that is left to lead."""
        started_at = time.monotonic()
        until = self._leads_until if self.is_leader else started_at + self._times.renew_deadline_s
        try:
            held = await self._hold(until)
        except KubernetesError as error:
            # If another candidate was faster (409), the next attempt sees which.
            level = logging.DEBUG if isinstance(error, ApiError) and error.status == 409 else logging.WARNING
            logger.log(level, "lease %s/%s: %s", self._namespace, self._name, error)
            return
        self._leads_until = started_at + self._times.renew_deadline_s if held else -math.inf

    async def _hold(self, until: float) -> bool:
        """Return whether the lease is ours now. Raise ApiError 409 if another candidate wrote it meanwhile."""
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name, _left_s(until))
        except ApiError as error:
            if error.status != 404:
                raise
            created = Lease({"name": self._name, "namespace": self._namespace}, self._record(LeaseSpec()))
            self._see((await self._client.create(LEASES, created, self._namespace, _left_s(until))).spec)
            return True
        self._see(lease.spec)
        if lease.spec.holderIdentity not in {None, "", self._identity} and not self._has_run_out():
            return False
        await self._write(lease, self._record(lease.spec), until)
        return True

    def _see(self, spec: LeaseSpec) -> None:
        if spec != self._seen:
            if spec.holderIdentity != self._seen.holderIdentity:
                logger.info("lease %s/%s: held by %s", self._namespace, self._name, spec.holderIdentity or "nobody")
            self._seen, self._seen_at = spec, time.monotonic()

    def _has_run_out(self) -> bool:
        return time.monotonic() >= self._seen_at + (self._seen.leaseDurationSeconds or 0)

    def _record(self, before: LeaseSpec) -> LeaseSpec:
        now = _micro_time()
        ours = before.holderIdentity == self._identity
        return LeaseSpec(
            holderIdentity=self._identity,
            leaseDurationSeconds=math.ceil(self._times.duration_s),
            acquireTime=before.acquireTime if ours and before.acquireTime else now,
            renewTime=now,
            leaseTransitions=(before.leaseTransitions or 0) + (0 if ours or before == LeaseSpec() else 1),
        )

    async def _write(self, lease: Lease, spec: LeaseSpec, until: float) -> None:
        changed = Lease(lease.metadata, spec)
        written = await self._client.replace(LEASES, changed, self._namespace, self._name, _left_s(until))
        self._see(written.spec)

    async def _release(self) -> None:
        """Let another candidate lead at once, if the lease is ours. If that fails, the lease runs out."""
        self._leads_until = -math.inf
        self._report()
        until = time.monotonic() + _LONGEST_RELEASE_S
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name, _left_s(until))
            if lease.spec.holderIdentity == self._identity:
                now, transitions = _micro_time(), lease.spec.leaseTransitions
                await self._write(lease, LeaseSpec(None, 1, now, now, transitions), until)
        except KubernetesError as error:
            logger.warning("can't release lease %s/%s: %s", self._namespace, self._name, error)

    def _report(self) -> None:
        if self.is_leader != self._reported:
            self._reported = not self._reported
            self.transitions += 1
            logger.info("%s %s", self._identity, "leads" if self._reported else "no longer leads")
            self._changed(self._reported)

    def _pause_s(self) -> float:
        """Return the seconds to the next attempt, never past the deadline, so that a leader stops in time."""
        pause_s = self._times.retry_period_s
        if not self._reported:
            return pause_s * random.uniform(1.0, 1.2)
        return min(pause_s, max(self._leads_until - time.monotonic(), 0.0))


def _left_s(until: float) -> float:
    """Return the seconds until that moment of the monotonic clock; at least the little that a request needs."""
    return max(until - time.monotonic(), 0.1)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
