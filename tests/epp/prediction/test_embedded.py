import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from epp.exceptions import PredictionUnavailableError
from epp.prediction.embedded import EmbeddedLatencyClient
from model_store import ROW_NAMES, SCHEMAS, open_store
from model_store.signing import make_keys
from tests.epp.process import picker_process
from tests.live import PATIENCE_S
from tests.predictor.models import pair

COLUMNS = np.arange(len(ROW_NAMES) * 3, dtype=np.float32).reshape(len(ROW_NAMES), 3)


async def test_predictions_come_from_the_stores_models(tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish(pair(2.0, offset=1.0))
    client = EmbeddedLatencyClient(str(tmp_path), sync_interval_s=60)
    await client.start()
    predictions = client.predict(COLUMNS)
    await client.close()
    for name, values in (("ttft", predictions.ttft_ms), ("tpot", predictions.tpot_ms)):
        wanted = [ROW_NAMES.index(feature.name) for feature in SCHEMAS[name]]
        np.testing.assert_allclose(values, 2 * COLUMNS[wanted].sum(axis=0) + 1, rtol=1e-6)
    assert (predictions.generation, predictions.source) == (1, "embedded")


@pytest.mark.slow
async def test_the_error_names_an_empty_store_until_models_arrive(tmp_path: Path) -> None:
    client = EmbeddedLatencyClient(str(tmp_path), sync_interval_s=0.02)
    await client.start()
    with pytest.raises(PredictionUnavailableError, match="nothing has been published"):
        client.predict(COLUMNS)
    open_store(str(tmp_path)).publish(pair(1.0))
    await served(client, 1)
    open_store(str(tmp_path)).publish(pair(3.0))
    await served(client, 2)
    await client.close()


async def served(client: EmbeddedLatencyClient, generation: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if client.predict(COLUMNS).generation == generation:
                    return
            except PredictionUnavailableError:
                pass
            await asyncio.sleep(0.01)


async def test_a_prediction_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    open_store(str(tmp_path)).publish(pair(1e38))
    client = EmbeddedLatencyClient(str(tmp_path), sync_interval_s=60)
    await client.start()
    with pytest.raises(PredictionUnavailableError, match="finite"):
        client.predict(COLUMNS * 100)
    await client.close()


@pytest.mark.slow
def test_a_picker_tells_that_nobody_has_signed_its_models(tmp_path: Path) -> None:
    make_keys(tmp_path / "signing.key", tmp_path / "verify.pem")
    open_store(str(tmp_path / "store")).publish(pair(1.0))
    flags = ["--enable-latency-predictor", "--latency-client=embedded", f"--model-store={tmp_path / 'store'}"]
    with picker_process(tmp_path, *flags, f"--verify-key-file={tmp_path / 'verify.pem'}") as picker:
        page = picker.metrics()
        refusals = re.search(r'^headroom_epp_model_refusals_total\{reason="signature"\} (\S+)', page, re.MULTILINE)
        assert refusals
        assert float(refusals[1]) >= 1
        assert "headroom_epp_model_generation 0.0" in page
