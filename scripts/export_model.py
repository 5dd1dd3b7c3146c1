#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""Publish an XGBoost model that was trained elsewhere as a generation of a model store."""

import csv
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from model_store import ROW_FEATURES, Draft, Feature, Manifest, Output, StoreError, Trust, open_store
from model_store.manifest import summary
from trainer.exceptions import ExportError
from trainer.export import GraphSpec, expected, export
from trainer.gate import check_parity, difference
from trainer.graph import Graph
from trainer.learners.sklearn_block import without_sklearn
from trainer.learners.xgboost_trees import XgboostModel, quantile_of
from trainer.wire import Matrix

with without_sklearn():
    import xgboost as xgb

_KNOWN = {feature.name: feature for feature in ROW_FEATURES}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LARGEST = float(np.finfo(np.float32).max)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("model", type=_FILE)
@click.option("--features", default="", help="The model's columns in order, comma-separated; default: the saved names.")
@click.option("--store", "location", default="", help="Model store to publish in.")
@click.option("--signing-key-file", default="", help="PEM file of an Ed25519 key that signs the generation.")
@click.option(
    "--verify-key-file", default="", help="PEM file of public keys that may have signed the models beside this one."
)
@click.option("--name", default="ttft", help="Name of the model in the store.")
@click.option("--output-name", default="", help="Name of the output column; default: NAME_ms.")
@click.option("--unit", default="ms", help="Unit of the output.")
@click.option(
    "--rows",
    "rows_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file of rows to verify on.",
)
@click.option(
    "--generated-rows",
    default=20_000,
    type=click.IntRange(1, 10_000_000),
    help="Number of rows to generate if --rows is absent.",
)
@click.option("--seed", default=0, help="Seed of the generated rows.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the graph to this file.")
def main(
    model: Path,
    features: str,
    location: str,
    signing_key_file: str,
    verify_key_file: str,
    name: str,
    output_name: str,
    unit: str,
    rows_file: Path | None,
    generated_rows: int,
    seed: int,
    out: Path | None,
) -> None:
    """Convert MODEL, an XGBoost model in JSON or UBJSON, to ONNX, compare both on many rows, and publish the graph.

    If the two differ by more than float32 rounding, nothing is published.
    """
    if not location and not out:
        raise click.UsageError("nothing to write: give --store, --out or both")
    try:
        booster = _read(model)
        names = _names(booster, features)
        manifest = _manifest(booster, names, name, Output(output_name or f"{name}_{unit}", unit, quantile_of(booster)))
        spec, models = GraphSpec(names, manifest.outputs), [XgboostModel(booster)]
        onnx_bytes = export(models, spec, summary(manifest))
        rows = _read_rows(rows_file, names) if rows_file else _make_rows(booster, len(names), generated_rows, seed)
        found = difference(Graph(onnx_bytes).outputs(names, rows), expected(models, rows, spec))
        click.echo(
            f"model       {model} ({booster.num_boosted_rounds()} trees, {len(names)} features, {manifest.objective})"
        )
        click.echo(f"compared    {found.rows} rows {f'of {rows_file}' if rows_file else 'around the split values'}")
        click.echo(f"difference  at most {found.absolute:.6g} {unit} ({found.relative:.3g} relative)")
        verdict = check_parity(found)
        if not verdict.passed:
            raise ExportError(f"not published: {verdict.reason}")
        if out:
            out.write_bytes(onnx_bytes)
            click.echo(f"written     {out} ({len(onnx_bytes)} bytes)")
        if location:
            generation = open_store(location, Trust(signing_key_file, verify_key_file)).publish(
                [Draft(manifest, onnx_bytes)]
            )
            version = generation.models[name].version
            click.echo(f"published   generation {generation.generation} of {location}: {name}/{version}")
    except (ExportError, StoreError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _read(path: Path) -> xgb.Booster:
    try:
        return xgb.Booster(model_file=str(path))
    except xgb.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"{path} is not an XGBoost model in JSON or UBJSON: {reason}") from error


def _names(booster: xgb.Booster, given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip()) or tuple(booster.feature_names or ())
    if not names:
        raise ExportError("the model was saved without feature names; give --features a,b,c in the columns' order")
    if len(set(names)) != len(names):
        raise ExportError(f"--features: a name occurs twice in {', '.join(names)}")
    if len(names) != booster.num_features():
        raise ExportError(f"the model has {booster.num_features()} features, but {len(names)} are named")
    return names


def _manifest(booster: xgb.Booster, names: Sequence[str], name: str, output: Output) -> Manifest:
    return Manifest(
        model=name,
        inputs=tuple(_KNOWN.get(n) or Feature(n, "1", minimum=-_LARGEST) for n in names),
        outputs=(output,),
        model_type="xgboost",
        objective="mean" if output.quantile is None else "quantile",
        trained_at=datetime.now(UTC),
        trainer_id="export_model",
    )


def _read_rows(path: Path, names: Sequence[str]) -> Matrix:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = set(names) - set(reader.fieldnames or ())
        if missing:
            raise ExportError(f"{path}: no column {sorted(missing)[0]}")
        try:
            rows = [[float(row[name] or "nan") for name in names] for row in reader]
        except (ValueError, TypeError) as error:
            raise ExportError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise ExportError(f"{path} has no rows")
    return np.array(rows, dtype=np.float32)


def _make_rows(booster: xgb.Booster, columns: int, count: int, seed: int) -> Matrix:
    """Generate rows of split values, their float32 neighbours and some missing values.

    A graph that compares the other way round, or treats missing values differently, differs on such rows.
    """
    rng = np.random.default_rng(seed)
    rows = np.empty((count, columns), dtype=np.float32)
    splits = _split_values(booster)
    for column in range(columns):
        values = np.array(sorted(splits.get(column, {0.0})), dtype=np.float32)
        around = np.concatenate(
            [values, np.nextafter(values, np.float32(-np.inf)), np.nextafter(values, np.float32(np.inf)), values * 2]
        )
        rows[:, column] = rng.choice(around, count)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def _split_values(booster: xgb.Booster) -> dict[int, set[float]]:
    nameless = booster.copy()
    nameless.feature_names = None
    values: dict[int, set[float]] = {}
    for text in nameless.get_dump(dump_format="json"):
        for node in _nodes(json.loads(text)):
            values.setdefault(int(node["split"].removeprefix("f")), set()).add(float(node["split_condition"]))
    return values


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "children" in node:
        yield node
        for child in node["children"]:
            yield from _nodes(child)


if __name__ == "__main__":
    main()
