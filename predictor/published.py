"""Loading the models of a generation. Models that were published together are swapped together."""

from collections.abc import Iterable, Mapping

from model_store import Generation, ModelStore, StoreError
from predictor.engine import Served
from predictor.exceptions import ModelError
from predictor.loading import Source
from predictor.model import Model
from predictor.opener import Opener
from predictor.versions import VersionPolicies, VersionPolicy


def publications(generation: Generation) -> list[tuple[str, ...]]:
    """Group the generation's models by publication: all models of a publication have the same version."""
    groups: dict[int, list[str]] = {}
    for name, ref in sorted(generation.models.items()):
        groups.setdefault(ref.version, []).append(name)
    return [tuple(names) for names in groups.values()]


def load_published(
    store: ModelStore,
    generation: Generation,
    names: Iterable[str],
    before: Mapping[str, Served],
    policies: VersionPolicies,
    opener: Opener,
) -> dict[str, Served]:
    """Read, verify and probe the named models; versions that are served already are reused from `before`.

    Raise ModelError for the first that can't be served; then none of them is.
    """
    return {name: _load(store, generation, name, before.get(name), policies.policy_of(name), opener) for name in names}


def _load(
    store: ModelStore,
    generation: Generation,
    name: str,
    before: Served | None,
    policy: VersionPolicy,
    opener: Opener,
) -> Served:
    models = {}
    for holder in _choose(store, generation, name, policy):
        ref = holder.models[name]
        known = before.versions.get(ref.version) if before else None
        is_same = known is not None and known.identity == ref.manifest_sha256
        models[ref.version] = known if known and is_same else _open(store, holder, name, opener)
    in_force = generation.models[name].version
    return Served(models.get(in_force, models[max(models)]), models, generation, policy)


def _choose(store: ModelStore, generation: Generation, name: str, policy: VersionPolicy) -> list[Generation]:
    """Return one generation for each version to serve. `latest` counts back from the version in force."""
    if policy.is_latest:
        return [generation]
    in_force = generation.models[name].version
    holders = {in_force: generation}
    try:
        for number in store.generations():
            older = store.generation(number)
            if name in older.models:
                holders.setdefault(older.models[name].version, older)
    except StoreError as error:
        raise ModelError(name, None, str(error)) from error
    counted = [version for version in holders if version <= in_force] if policy.latest else list(holders)
    chosen = [holders[version] for version in policy.choose(counted)]
    if not chosen:
        raise ModelError(name, None, f"none of its versions {sorted(holders)} is {policy}")
    return chosen


def _open(store: ModelStore, generation: Generation, name: str, opener: Opener) -> Model:
    ref = generation.models[name]
    try:
        stored = store.read(generation, name, opener.limits.model_bytes)
    except StoreError as error:
        raise ModelError(name, ref.version, str(error)) from error
    return opener.open(Source(name, ref.version, stored.onnx, stored.manifest, ref.manifest_sha256))
