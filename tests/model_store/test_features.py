import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import model_store
from epp.prediction.wire import rows_body
from model_store import ROW_NAMES

REPOSITORY = Path(model_store.__file__).parents[1]
ADDED = """
    cost_usd: Annotated[float | None, Column("USD", TTFT, "what a token costs")] = None
    seats_taken: Annotated[Count, Column("items", TPOT, "a count that every row knows")] = 0
"""
# Runs with the copy; prints each part's view of the added features.
SCRIPT = """
import json
import msgspec
import numpy as np
from epp.prediction.features import feature_columns
from epp.prediction.wire import columns_body, rows_body, training_row
from epp.scheduling.request import Request
from model_store import ROW_NAMES, SCHEMAS, FeatureRow
from predictor.columns import read_columns
from predictor.openapi import document
from predictor.wire import BulkRequest
from tests.epp.scheduling.snapshots import build_snapshot
from trainer.derivation import design_columns
from trainer.journal import _COLUMNS
from trainer.wire import decode_batch

columns = np.full((len(ROW_NAMES), 2), 0.5, dtype=np.float32)
columns[-2:] = [[1.25, np.nan], [3, 4]]
entries = [training_row(columns[:, index : index + 1], ttft_ms=5.0) for index in range(2)]
row = msgspec.json.decode(rows_body(columns), type=BulkRequest).requests[0]
try:
    feature_columns(Request("1", "m"), build_snapshot(1))
    problem = ""
except KeyError as error:
    problem = error.args[0]
print(json.dumps({
    "fields": FeatureRow.__struct_fields__[-2:],
    "values": [row.cost_usd, row.seats_taken],
    "schemas": {target: [feature.name for feature in features][-1] for target, features in SCHEMAS.items()},
    "trainer": repr(decode_batch(msgspec.json.encode({"entries": entries})).features[:, -2:].tolist()),
    "design": [name in design_columns("ttft") for name in ROW_NAMES[-2:]],
    "journal": _COLUMNS[-4:-2],
    "predictor": repr(read_columns(columns_body(columns), 10)[0][-2:].tolist()),
    "openapi": list(document()["components"]["schemas"]["FeatureRow"]["properties"])[-2:],
    "unknown to the picker": problem,
}))
"""


def test_a_feature_is_added_in_one_place_and_computed_in_another(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "model_store", tmp_path / "model_store", ignore=shutil.ignore_patterns("__pycache__"))
    definition = tmp_path / "model_store" / "features.py"
    before, after = definition.read_text().split("\n\n\ndef _column", 1)
    definition.write_text(f"{before}{ADDED}\n\ndef _column{after}")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "fields": ["cost_usd", "seats_taken"],
        "values": [1.25, 3],
        "schemas": {"ttft": "cost_usd", "tpot": "seats_taken"},
        "trainer": "[[1.25, 3.0], [nan, 4.0]]",
        "design": [True, False],
        "journal": ["cost_usd", "seats_taken"],
        "predictor": "[[1.25, nan], [3.0, 4.0]]",
        "openapi": ["cost_usd", "seats_taken"],
        "unknown to the picker": "cost_usd",
    }


def test_a_row_has_the_json_form_that_clients_send() -> None:
    row = dict.fromkeys(ROW_NAMES, 3.0) | {"kv_cache_percentage": 0.25, "prefix_cache_score": 0.5, "pod_type": 2.0}
    row["recent_tpot_ms"] = np.nan
    assert rows_body(np.array([[value] for value in row.values()], dtype=np.float32)) == (
        b'{"requests":[{"kv_cache_percentage":0.25,"input_token_length":3,"num_request_waiting":3,'
        b'"num_request_running":3,"num_tokens_generated":3,"prefix_cache_score":0.5,"prefill_tokens_in_flight":3,'
        b'"decode_tokens_in_flight":3,"encoder_matched_size":3,"encoder_input_size":3,"pod_type":"decode",'
        b'"recent_prefill_ms_per_token":3.0,"recent_tpot_ms":null,"ms_since_token":3.0}]}'
    )
