"""`python -m model_store`: commands that list, verify, roll back, clean up and copy a model store."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from model_store.exceptions import StoreError, UntrustedError
from model_store.manifest import Generation, Manifest
from model_store.opening import open_store
from model_store.signing import Trust, make_keys
from model_store.store import KEEP_GENERATIONS, Draft, ModelStore

_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"]}
_LOCATION = click.argument("store")
_F = TypeVar("_F", bound=Callable[..., Any])


def _verify_key(function: _F) -> _F:
    text = "PEM file of public keys. Refuse what none of them has signed."
    return click.option("--verify-key-file", envvar="MODEL_VERIFY_KEY_FILE", default="", help=text)(function)


def _signing_key(function: _F) -> _F:
    text = "PEM file of an Ed25519 key that signs what is published."
    return click.option("--signing-key-file", envvar="MODEL_SIGNING_KEY_FILE", default="", help=text)(function)


class _Commands(click.Group):
    """A command group that reports a StoreError as one line on standard error."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StoreError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings=_SETTINGS)
def main() -> None:
    """Inspect and manage the model store that the trainer and the predictors share.

    STORE is a folder, or s3://bucket/prefix. For S3, boto3 reads the endpoint, the region and the credentials from
    the environment (AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, ...) or from its other usual sources.
    """


@main.command("ls")
@_LOCATION
def list_generations(store: str) -> None:
    """List the generations that can be rolled back to; * marks the one in force."""
    opened = open_store(store)
    current = _current(opened)
    for number in opened.generations():
        generation = opened.generation(number)
        models = "  ".join(f"{name}/{ref.version}" for name, ref in sorted(generation.models.items()))
        mark = "*" if number == current.generation else " "
        click.echo(f"{mark} {number:>6}  {_time(generation.published_at)}  {models}")


@main.command()
@_LOCATION
@click.argument("model")
@click.option("--generation", type=int, help="Generation number; default: the one in force.")
def show(store: str, model: str, generation: int | None) -> None:
    """Print a model's manifest as JSON."""
    opened = open_store(store)
    manifest = opened.read(_generation(opened, generation), model).manifest
    click.echo(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


@main.command()
@_LOCATION
@_verify_key
def verify(store: str, verify_key_file: str) -> None:
    """Read every model of every generation and check its size and hash. Exit with status 1 if any is damaged.

    With --verify-key-file, check the signature of every generation too.
    """
    opened = open_store(store, Trust(verify_key_file=verify_key_file))
    damaged = 0
    for number in opened.generations():
        try:
            generation = opened.generation(number)
        except UntrustedError as error:
            damaged += 1
            click.echo(f"{number:>6}  NOT TRUSTED: {error}")
            continue
        for model in sorted(generation.models):
            try:
                size = len(opened.read(generation, model).onnx)
                click.echo(f"{number:>6}  {model}/{generation.models[model].version}  ok, {size} bytes")
            except StoreError as error:
                damaged += 1
                click.echo(f"{number:>6}  {model}/{generation.models[model].version}  DAMAGED: {error}")
    if damaged:
        raise click.ClickException(
            f"{damaged} damaged or not trusted; roll back only to a generation that names none of them"
        )


@main.command()
@_LOCATION
@click.argument("generation", type=int)
@_verify_key
def rollback(store: str, generation: int, verify_key_file: str) -> None:
    """Verify an older generation and put it in force again. It keeps its number and its signature."""
    opened = open_store(store, Trust(verify_key_file=verify_key_file))
    opened.rollback(generation)
    click.echo(f"generation {generation} is in force")


@main.command()
@_LOCATION
@_verify_key
def repair(store: str, verify_key_file: str) -> None:
    """Set a damaged current.json aside, and put the newest complete generation in force.

    A leading trainer does this by itself.
    """
    repaired = open_store(store, Trust(verify_key_file=verify_key_file)).repair()
    if repaired is None:
        click.echo("current.json is sound")
        return
    now = f"generation {repaired.generation.generation} is in force" if repaired.generation else "no generation is left"
    click.echo(f"set aside as {repaired.set_aside}; {now}")


@main.command()
@_LOCATION
@click.option("--keep", default=KEEP_GENERATIONS, type=click.IntRange(1), help="Number of newest generations to keep.")
def gc(store: str, keep: int) -> None:
    """Remove older generations, and the leftovers of interrupted publications."""
    removed = open_store(store).collect(keep)
    click.echo(f"removed {len(removed)} generations" + (f": {', '.join(map(str, removed))}" if removed else ""))


@main.command()
@_LOCATION
@click.argument("destination")
@click.option("--generation", type=int, help="Generation number; default: the one in force.")
@_signing_key
@_verify_key
def push(store: str, destination: str, generation: int | None, signing_key_file: str, verify_key_file: str) -> None:
    """Publish a generation of STORE in DESTINATION, where it becomes the newest."""
    _copy(store, destination, generation, Trust(signing_key_file, verify_key_file))


@main.command()
@_LOCATION
@click.argument("source")
@click.option("--generation", type=int, help="Generation number; default: the one in force.")
@_signing_key
@_verify_key
def pull(store: str, source: str, generation: int | None, signing_key_file: str, verify_key_file: str) -> None:
    """Publish a generation of SOURCE in STORE, where it becomes the newest."""
    _copy(source, store, generation, Trust(signing_key_file, verify_key_file))


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def keygen(folder: Path) -> None:
    """Write a pair of keys to FOLDER: signing.key for the trainer, verify.pem for all who load models."""
    made = make_keys(folder / "signing.key", folder / "verify.pem")
    click.echo(f"wrote signing.key and verify.pem of key {made} to {folder}")


def _copy(source: str, destination: str, number: int | None, trust: Trust) -> None:
    """Copy a generation. Only the verify key counts for the source: another's signature says nothing here."""
    opened = open_store(source, Trust(verify_key_file=trust.verify_key_file))
    wanted = _generation(opened, number)
    stored = [opened.read(wanted, model) for model in sorted(wanted.models)]
    published = open_store(destination, trust).publish(
        [Draft(_without_version(model.manifest), model.onnx) for model in stored]
    )
    click.echo(f"generation {wanted.generation} of {source} is generation {published.generation} of {destination}")


def _without_version(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, version=0, parent_version=None)


def _generation(store: ModelStore, number: int | None) -> Generation:
    return _current(store) if number is None else store.generation(number)


def _current(store: ModelStore) -> Generation:
    current = store.current()
    if current is None:
        raise StoreError(f"{store.location} holds no generation")
    return current


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


if __name__ == "__main__":
    main(prog_name="python -m model_store")
