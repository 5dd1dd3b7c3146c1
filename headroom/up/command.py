"""`headroom up`: route requests by prediction in front of model servers that run already, on one machine."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from epp.exceptions import ConfigError
from epp.flags import Duration
from epp.pool.addresses import join_address
from epp.pool.endpoint_list import ListedEndpoint
from epp.reload import ReloadedFile
from epp.request.default_objectives import read_default_objectives
from headroom.gateway.tracing import Collector, collector
from headroom.processes.running import exit_status
from headroom.processes.supervisor import Supervisor
from headroom.servers.access import CA_FLAG, INSECURE_FLAG, KEY_FLAG, ServerAccess
from headroom.servers.command import look_at_all, show
from headroom.state import state_folder
from headroom.up.clients import ClientFlags
from headroom.up.parts import Settings, parts, write_discovered, write_listener, write_objectives
from headroom.up.pool import is_tls, listed_places, places, with_engine
from serving.watched_file import POLL_S, file_stamp

_PORT = click.IntRange(1, 65535)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MS = click.FloatRange(0, min_open=True)
# A part that ends starts again after this time.
_RESTART_S = 1.0
# One prediction server for the first cores, and up to three on large machines, as the chart has them.
_CORES_A_PREDICTOR, _MOST_PREDICTORS = 4, 3


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("urls", nargs=-1)
@click.option(
    "--endpoints-file",
    type=_FILE,
    help="File that lists the servers instead, as the picker's flag of that name; its changes are followed.",
)
@click.option("--host", default="127.0.0.1", help="Address at which clients are served. 0.0.0.0: on all.")
@click.option("--port", default=8080, type=_PORT, help="Port for clients.")
@click.option("--page-port", default=9090, type=_PORT, help="Port of live page and metrics, on this machine only.")
@click.option("--ttft-ms", type=_MS, help="Objective of requests that bring none: time to first token.")
@click.option("--tpot-ms", type=_MS, help="Objective of requests that bring none: time per output token.")
@click.option(
    "--objectives",
    type=_FILE,
    help="File of objectives for requests that bring none, by model or header; its changes are followed.",
)
@click.option("--tls-cert", type=_FILE, help="Certificates in PEM format, to serve clients over TLS.")
@click.option("--tls-key", type=_FILE, help="The certificate's private key in PEM format.")
@click.option(
    "--api-key-file", type=_FILE, help="File with the key that clients must send. It is passed on to the servers."
)
@click.option(
    "--server-tls", is_flag=True, help="Reach the servers of --endpoints-file over TLS. URLS say it: https://"
)
@click.option(CA_FLAG, type=_FILE, help="CAs of the servers, in PEM format, followed. Default: the system's.")
@click.option(INSECURE_FLAG, is_flag=True, help="Accept any certificate of a server.")
@click.option(
    KEY_FLAG, type=_FILE, help="File with the key for the servers' models and metrics. Default: that of --api-key-file."
)
@click.option("--max-body-mib", default=32, type=click.IntRange(1, 1024), help="Largest body of a request, in MiB.")
@click.option("--timeout", default="0s", type=Duration(), help="Longest time of an answer, such as 10m. 0s: no limit.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps models, samples and logs. Default: headroom in XDG_STATE_HOME.",
)
@click.option(
    "--predictors", type=click.IntRange(1, 64), help="Prediction servers. Default: one for four cores, at most three."
)
@click.option(
    "--tracing",
    is_flag=True,
    help="Send traces by OTLP over HTTP, from Envoy and the picker, to the collector of OTEL_EXPORTER_OTLP_ENDPOINT.",
)
@click.option("--shadow", is_flag=True, help="Route nothing by prediction; headroom report says what it would gain.")
@click.option("--embedded", is_flag=True, help="Predict in the picker's own process, without prediction servers.")
def up(
    urls: tuple[str, ...],
    endpoints_file: Path | None,
    host: str,
    port: int,
    page_port: int,
    ttft_ms: float | None,
    tpot_ms: float | None,
    objectives: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    api_key_file: Path | None,
    server_tls: bool,
    server_ca_file: Path | None,
    server_insecure: bool,
    server_key_file: Path | None,
    max_body_mib: int,
    timeout: float,
    state: Path | None,
    predictors: int | None,
    tracing: bool,
    shadow: bool,
    embedded: bool,
) -> None:
    """Route requests in front of the model servers at URLS, such as http://gpu1:8000, or https:// for all of them.

    It starts Envoy, the picker, the trainer and prediction servers on this machine, and serves OpenAI's API at --port.
    Each server is asked for one token first. A request is routed by prediction if it has objectives. Models and samples
    are kept, so that the next start predicts from its first request. A server that is away gets no requests until it is
    back. Ctrl-C ends it all. SIGHUP reads the files of certificate and API key again; other files are followed.
    """
    if embedded and predictors:
        raise click.UsageError("--embedded needs no --predictors")
    if bool(urls) == bool(endpoints_file):
        raise click.UsageError("expected URLS of servers, or --endpoints-file")
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("--tls-cert and --tls-key need each other")
    if objectives and (ttft_ms or tpot_ms):
        raise click.UsageError(
            "--objectives FILE replaces --ttft-ms and --tpot-ms: add a rule without model and headers"
        )
    _check_objectives(objectives)
    key_file = server_key_file or api_key_file
    servers = ServerAccess(
        key_file=key_file and key_file.absolute(),
        ca_file=server_ca_file and server_ca_file.absolute(),
        accepts_any=server_insecure,
    )
    clients = ClientFlags(
        host=host,
        tls_cert=tls_cert and tls_cert.absolute(),
        tls_key=tls_key and tls_key.absolute(),
        api_key_file=api_key_file and api_key_file.absolute(),
        max_body_bytes=max_body_mib << 20,
        timeout_s=timeout,
    )
    folder = _made(state or state_folder(os.environ))
    settings = Settings(
        pool=_listed(endpoints_file) if endpoints_file else places(urls),
        listed=endpoints_file and endpoints_file.absolute(),
        state=folder,
        clients=clients,
        servers=servers,
        is_tls=_speak_tls(urls, server_tls, servers),
        port=port,
        page_port=page_port,
        predictors=0 if embedded else predictors or _room_for_predictors(),
        is_shadow=shadow,
        collector=_collector() if tracing else None,
        objectives=objectives.absolute() if objectives else write_objectives(folder, ttft_ms, tpot_ms),
    )
    console = Console(stderr=True)
    sys.exit(asyncio.run(exit_status(_run(settings, console), console)))


def _collector() -> Collector:
    try:
        return collector(os.environ)
    except ValueError as error:
        raise click.UsageError(f"--tracing: {error}") from error


async def _run(settings: Settings, console: Console) -> None:
    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    clients = settings.clients.read()
    urls = [_url(place, settings.is_tls) for place in settings.pool]
    looked = await look_at_all(urls, settings.servers, asks=True, addresses=[place.host for place in settings.pool])
    show(looked, console)
    pool = [with_engine(place, one.engine) for place, one in zip(settings.pool, looked, strict=True)]
    settings = replace(settings, pool=pool)
    supervisor = Supervisor(settings.state, lambda name: tell(f"{name} ended and starts again"), _RESTART_S)
    try:
        started = parts(settings)
        tell(f"starting {', '.join(part.name for part in started)}; logs, models and samples are in {settings.state}")
        # Envoy asks the picker at once whether it serves, and sends requests past it until it does.
        await supervisor.start(started[:-1], lambda name: None)
        await supervisor.start(started[-1:], lambda name: None)
        scheme = "https" if clients.certificate else "http"
        tell(f"clients: {scheme}://{clients.host}:{settings.port}/v1")
        tell(f"live page: http://127.0.0.1:{settings.page_port}/live/; a decision in words: headroom explain")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, settings, tell)
        await _follow(settings, tell)
    finally:
        await supervisor.stop()


def _reload(settings: Settings, tell: Callable[[str], None]) -> None:
    """Read the certificate and the API key again. Requests that have begun go on."""
    try:
        write_listener(settings, settings.clients.read())
    except click.ClickException as error:
        tell(f"clients are served as before: {error.message}")
    else:
        tell("read certificate and API key again")


async def _follow(settings: Settings, tell: Callable[[str], None]) -> None:
    """Tell Envoy of every change of the user's files of servers and CAs. The picker follows the files itself."""
    files = [file for file in (settings.listed, settings.servers.ca_file) if file]
    if not files:
        await asyncio.Event().wait()
    pool, stamps = settings.pool, [file_stamp(file) for file in files]
    while True:
        await asyncio.sleep(POLL_S)
        if (newest := [file_stamp(file) for file in files]) == stamps:
            continue
        stamps = newest
        try:
            found = await asyncio.to_thread(listed_places, settings.listed) if settings.listed else pool
            write_discovered(settings, found)
        except (ConfigError, click.ClickException) as error:
            tell(f"the servers stay as they were: {error}")
        else:
            tell(f"servers: {len(pool)} before, {len(found)} now")
            pool = found


def _speak_tls(urls: Sequence[str], server_tls: bool, servers: ServerAccess) -> bool:
    """Return whether the servers are reached over TLS. A click.UsageError says which flags contradict each other."""
    if urls and server_tls:
        raise click.UsageError("--server-tls is for --endpoints-file: URLS say it themselves, by https://")
    found = is_tls(urls) if urls else server_tls
    if not found and (servers.ca_file or servers.accepts_any):
        wanted = "https:// URLS, or --server-tls beside --endpoints-file"
        raise click.UsageError(f"{CA_FLAG if servers.ca_file else INSECURE_FLAG} needs {wanted}")
    return found


def _url(place: ListedEndpoint, over_tls: bool) -> str:
    return f"https://{join_address(place.server_name, place.port)}" if over_tls else f"http://{place.address}"


def _listed(file: Path) -> list[ListedEndpoint]:
    try:
        return listed_places(file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _check_objectives(file: Path | None) -> None:
    try:
        if file:
            ReloadedFile(file, read_default_objectives).load()
    except ConfigError as error:
        raise click.UsageError(f"--objectives: {error}") from error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--state: can't make {folder}: {error.strerror}") from error
    return folder


def _room_for_predictors() -> int:
    return min(max((os.cpu_count() or 1) // _CORES_A_PREDICTOR, 1), _MOST_PREDICTORS)
