"""`headroom look`: look at the model servers of a pool, and say what to change in them."""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from headroom.servers.access import CA_FLAG, INSECURE_FLAG, KEY_FLAG, ServerAccess
from headroom.servers.look import Looked, look_at
from headroom.servers.one_address import OneAddress
from headroom.terminal import printable

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("urls", nargs=-1, required=True)
@click.option(KEY_FLAG, "--api-key-file", "key_file", type=_FILE, help="File with the servers' API key.")
@click.option(
    CA_FLAG, "--ca-file", "ca_file", type=_FILE, help="CAs of the servers, in PEM format. Default: the system's."
)
@click.option(INSECURE_FLAG, "accepts_any", is_flag=True, help="Accept any certificate of a server.")
@click.option("--ask/--no-ask", default=True, help="Ask each server for one token, to see if its streams count them.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def look(
    urls: tuple[str, ...], key_file: Path | None, ca_file: Path | None, accepts_any: bool, ask: bool, as_json: bool
) -> None:
    """Look at the model servers at URLS before they become a pool, and say what to change in them.

    It reads their models, version and metrics, and asks each for one token. The exit status is 1 if a server can't be
    used.
    """
    access = ServerAccess(key_file=key_file, ca_file=ca_file, accepts_any=accepts_any)
    found = asyncio.run(look_at_all(urls, access, asks=ask))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        show(found, Console())
    sys.exit(int(any(one.problem for one in found)))


async def look_at_all(
    urls: Sequence[str], access: ServerAccess, *, asks: bool, addresses: Sequence[str] = ()
) -> list[Looked]:
    """Look at all servers at once. `addresses` are those of the URLs' names, if they are known."""
    known = addresses or [""] * len(urls)
    api_key, context = access.api_key(), access.context()
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def look_one(url: str, address: str) -> Looked:
        connector = aiohttp.TCPConnector(ssl=context, resolver=OneAddress(address) if address else None)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            return await look_at(session, url, asks=asks)

    return list(await asyncio.gather(*map(look_one, urls, known)))


def show(found: Sequence[Looked], console: Console) -> None:
    """Print one table, and below it what to change."""
    heads = ("engine", "models", "adapters", "streams count tokens", "metrics lack")
    table = Table(Column("server", overflow="fold"), *heads, title="servers")
    for one in found:
        table.add_row(*(escape(printable(text)) for text in _cells(one)))
    console.print(table)
    for line in advice(found):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


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
