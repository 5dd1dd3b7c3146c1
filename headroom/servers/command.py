"""`headroom look`: look at the model servers of a pool, and say what to change in them."""

import asyncio
import dataclasses
import json
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from headroom.servers.api_key import read_api_key
from headroom.servers.look import Looked, look_at
from headroom.terminal import printable

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("urls", nargs=-1, required=True)
@click.option("--api-key-file", type=_FILE, help="File with the servers' API key.")
@click.option("--ca-file", type=_FILE, help="Certificates to trust, in PEM format.")
@click.option("--ask/--no-ask", default=True, help="Ask each server for one token, to see if its streams count them.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def look(urls: tuple[str, ...], api_key_file: Path | None, ca_file: Path | None, ask: bool, as_json: bool) -> None:
    """Look at the model servers at URLS before they become a pool, and say what to change in them.

    It reads their models, version and metrics, and asks each for one token. The exit status is 1 if a server can't be
    used.
    """
    found = asyncio.run(look_at_all(urls, read_api_key(api_key_file), ca_file, asks=ask))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        show(found, Console())
    sys.exit(int(any(one.problem for one in found)))


async def look_at_all(urls: Sequence[str], api_key: str, ca_file: Path | None, *, asks: bool) -> list[Looked]:
    """Look at all servers at once."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        trusted: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
    except (OSError, ssl.SSLError) as error:
        raise click.ClickException(f"can't read the certificates in {ca_file}: {error}") from error
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        return list(await asyncio.gather(*(look_at(session, url, asks=asks) for url in urls)))


def show(found: Sequence[Looked], console: Console) -> None:
    """Print one table, and below it what to change."""
    heads = ("engine", "models", "adapters", "streams count tokens", "metrics lack")
    table = Table(Column("server", overflow="fold"), *heads, title="servers")
    for one in found:
        table.add_row(*(escape(printable(text)) for text in _cells(one)))
    console.print(table)
    for line in advice(found):
        console.print(printable(line), markup=False, highlight=False)


def advice(found: Sequence[Looked]) -> Iterator[str]:
    """Yield what is amiss and what to change, a line each."""
    for one in found:
        if one.problem:
            yield f"{one.url}: {one.problem}"
        yield from (f"{one.url}: {line}" for line in one.advice)
    models = {one.models for one in found if not one.problem}
    if len(models) > 1:
        yield "the servers don't serve the same models: a pool sends a request to any of its servers"


def _cells(one: Looked) -> list[str]:
    if one.problem:
        return [one.url, "-", "-", "-", "-", "-"]
    counts = {True: "yes", False: "no", None: "not tried"}[one.counts_tokens]
    engine = f"{one.engine or 'unknown'} {one.version}".rstrip()
    return [one.url, engine, ", ".join(one.models), ", ".join(one.adapters) or "-", counts, ", ".join(one.missing)]
