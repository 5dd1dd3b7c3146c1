"""Run one candidate for the lease: `python -m tests.kubernetes.candidate KUBECONFIG NAMESPACE IDENTITY`."""

import asyncio
import signal
import sys
from contextlib import suppress

from epp.kubernetes.access import connect
from epp.kubernetes.leader import LeaderElection, LeaseTimes, lease_name


async def contend(kubeconfig: str, namespace: str, identity: str) -> None:
    """Take part in the election until SIGTERM."""
    times = LeaseTimes(duration_s=2.0, renew_deadline_s=1.5, retry_period_s=0.2)
    async with connect(kubeconfig) as client:
        election = LeaderElection(client, lease_name("models", "pool"), namespace, identity, times=times)
        work = asyncio.create_task(election.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work


if __name__ == "__main__":
    asyncio.run(contend(*sys.argv[1:]))
