"""`headroom seed`: publish models of a simulated pool, so that a new installation predicts its first request."""

from collections.abc import Sequence
from dataclasses import replace

import click
import msgspec

from lab.cold_start.starts import Trial, learn
from lab.evaluation.replay.learning import Models
from lab.loop.options import check_hardware
from model_store import Draft, Manifest, StoreError, Trust, open_store
from model_store.manifest import decode
from simulator.workloads import WORKLOADS

# Multiples of the pool's typical rate: from a quiet pool to one with queues.
_LOADS = (0.3, 0.6, 0.9)
_TRAINER_ID = "seed"


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("servers", nargs=-1, required=True, callback=check_hardware)
@click.option("--model-store", "location", required=True, help="Folder, or s3://bucket/prefix, to publish models in.")
@click.option("--requests", default=6_000, type=click.IntRange(500), help="Simulated requests to learn from.")
@click.option("--workload", default="poisson", type=click.Choice(list(WORKLOADS)), help="Traffic to learn from.")
@click.option("--replace", "replaces", is_flag=True, help="Publish even if the store has models already.")
@click.option("--signing-key-file", default="", help="PEM file of an Ed25519 key that signs the generation.")
@click.option("--verify-key-file", default="", help="PEM file of public keys that may have signed earlier generations.")
def seed(
    servers: Sequence[str],
    location: str,
    requests: int,
    workload: str,
    replaces: bool,
    signing_key_file: str,
    verify_key_file: str,
) -> None:
    """Publish models of SERVERS, so that the first request of a new installation is predicted.

    Each of SERVERS is one server of the pool: the calibration that `headroom calibrate` wrote for it, or the name of a
    calibration that is shipped. The pool is simulated under traffic at several loads, and models learn from it. The
    trainer replaces them by models of the real traffic as soon as those predict it better.
    """
    try:
        store = open_store(location, Trust(signing_key_file, verify_key_file))
        current = store.current()
        if current is not None and not replaces:
            raise click.ClickException(
                f"{location} has generation {current.generation} already, perhaps of real traffic: "
                "use --replace to put models of a simulation in its place"
            )
        generation = store.publish(_drafts(_learnt(servers, workload, requests)))
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"published generation {generation.generation} in {location}, from {requests:,} simulated requests")


def _learnt(servers: Sequence[str], workload: str, requests: int) -> Models:
    """Return models that have learnt from simulated traffic at several loads, one after the other."""
    pool = replace(WORKLOADS[workload], pool=tuple(servers))
    models: Models | None = None
    with click.progressbar(_LOADS, label=f"simulating {len(servers)} servers", show_eta=False) as loads:
        for load in loads:
            models = learn(Trial(pool, load), requests // len(_LOADS), models)
    if models is None or not models.onnx:
        raise click.ClickException(f"{requests} requests were too few for models: raise --requests")
    return models


def _drafts(models: Models) -> list[Draft]:
    manifests = {name: decode(data, Manifest, name) for name, data in models.manifests.items()}
    return [
        Draft(msgspec.structs.replace(manifests[name], trainer_id=_TRAINER_ID), onnx)
        for name, onnx in models.onnx.items()
    ]
