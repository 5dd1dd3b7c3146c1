"""The model store: published models, their manifests and features, in a folder or an S3 bucket."""

from model_store.exceptions import DamagedError, NotFoundError, StoreError, StoreUnavailableError, UntrustedError
from model_store.features import POD_TYPE_CODES, ROW_FEATURES, ROW_NAMES, SCHEMAS, TARGETS, Feature, FeatureRow
from model_store.manifest import Generation, Manifest, ModelFile, ModelRef, Output
from model_store.opening import open_store
from model_store.rows import row_columns, row_matrix, row_values
from model_store.signing import NO_TRUST, Trust
from model_store.store import KEEP_GENERATIONS, Draft, ModelStore, Repair, StoredModel

__all__ = [
    "KEEP_GENERATIONS",
    "NO_TRUST",
    "POD_TYPE_CODES",
    "ROW_FEATURES",
    "ROW_NAMES",
    "SCHEMAS",
    "TARGETS",
    "DamagedError",
    "Draft",
    "Feature",
    "FeatureRow",
    "Generation",
    "Manifest",
    "ModelFile",
    "ModelRef",
    "ModelStore",
    "NotFoundError",
    "Output",
    "Repair",
    "StoreError",
    "StoreUnavailableError",
    "StoredModel",
    "Trust",
    "UntrustedError",
    "open_store",
    "row_columns",
    "row_matrix",
    "row_values",
]
