import math

import msgspec
import numpy as np

from epp.prediction.wire import prediction_rows, training_row
from model_store import ROW_NAMES, FeatureRow
from trainer.wire import decode_batch


def test_a_row_reaches_the_trainer_unchanged() -> None:
    features = dict.fromkeys(ROW_NAMES, 3.0) | {"kv_cache_percentage": 0.25, "prefix_cache_score": 0.5, "pod_type": 2.0}
    features["recent_tpot_ms"] = math.nan
    columns = np.array([[value] for value in features.values()], dtype=np.float32)
    row = training_row(columns, ttft_ms=12.5, length_source="tokenizer")
    samples = decode_batch(msgspec.json.encode({"entries": [row]}))
    np.testing.assert_array_equal(samples.features[0], columns[:, 0])
    assert (samples.ttft_ms[0], samples.tpot_ms[0]) == (12.5, 0.0)


def test_every_feature_has_its_field() -> None:
    assert FeatureRow.__struct_fields__ == ROW_NAMES
    assert prediction_rows(np.zeros((len(ROW_NAMES), 0), dtype=np.float32)) == []
