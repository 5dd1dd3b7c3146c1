"""Run the node agent as a process: `python -m tests.node KUBECONFIG FOLDER SUBNET API-SERVER-PORT`.

The agent prints its node's port once the node is registered. When the agent ends, everything it started ends too,
even after a SIGKILL.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from aiohttp import web
from lightkube import AsyncClient, KubeConfig

from tests.node import linux
from tests.node.events import Recorder
from tests.node.kubelet_api import application, server_context
from tests.node.network import Subnet, make_bridge
from tests.node.node import Pods, keep_alive, register
from tests.node.pod import Node
from tests.node.provisioner import provision, reclaim
from tests.node.services import serve_names, serve_services

NODE = "node-1"


async def serve(kubeconfig: str, folder: Path, subnet: Subnet, api_port: int) -> None:
    """Run the node until SIGTERM."""
    client = AsyncClient(KubeConfig.from_file(kubeconfig).get(), trust_env=False)
    node = Node(NODE, folder, subnet, client, Recorder(client, NODE))
    pods = Pods(node)
    context = server_context(folder / "node.crt", folder / "node.key", folder / "api-server-client.crt")
    async with contextlib.AsyncExitStack() as stack:
        runner = web.AppRunner(application(pods))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, subnet.gateway, 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        await register(node, port)
        loops = (
            keep_alive(node, port),
            pods.run(),
            provision(client, folder / "claims"),
            reclaim(client),
            serve_services(client, subnet, api_port),
            serve_names(client, subnet),
        )
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        work = asyncio.gather(*loops)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work


def main(kubeconfig: str, folder: str, subnet: str, api_port: str) -> None:
    linux.end_with_parent()
    # Only this process's children see its mounts, and the mounts vanish with those processes.
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    os.umask(0o022)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    with make_bridge(Subnet(int(subnet))):
        asyncio.run(serve(kubeconfig, Path(folder), Subnet(int(subnet)), int(api_port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
