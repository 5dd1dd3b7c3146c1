import math

import msgspec
import numpy as np

from epp.features import NAMES
from epp.latency.wire import PredictionRow, prediction_rows, training_row
from trainer.wire import decode_batch


def test_a_row_reaches_the_trainer_as_the_picker_knew_it() -> None:
    features = dict.fromkeys(NAMES, 3.0) | {"kv_cache_percentage": 0.25, "prefix_cache_score": 0.5, "pod_type": 2.0}
    features["recent_tpot_ms"] = math.nan
    row = training_row(list(features.values()), ttft_ms=12.5)
    samples = decode_batch(msgspec.json.encode({"entries": [row]}))
    np.testing.assert_array_equal(samples.features[0], np.array(list(features.values()), dtype=np.float32))
    assert (samples.ttft_ms[0], samples.tpot_ms[0]) == (12.5, 0.0)


def test_every_feature_has_its_field() -> None:
    assert PredictionRow.__struct_fields__ == NAMES
    assert prediction_rows(np.zeros((0, len(NAMES)), dtype=np.float32)) == []
