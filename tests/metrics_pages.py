"""The metrics pages of a picker, a trainer and a predictor with all their parts switched on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from tests.epp.process import picker_process
from tests.helm.release import render
from tests.live import call, until
from tests.predictor.models import running_predictor
from tests.trainer.process import started
from tests.trainer.test_trainer_app import entries

# A kubeconfig of an API server that does not answer.
_KUBECONFIG: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "away",
    "contexts": [{"name": "away", "context": {"cluster": "away", "user": "nobody"}}],
    "clusters": [{"name": "away", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {}}],
}
_PAGES: dict[str, str] = {}


def metrics_pages(folder: Path) -> Mapping[str, str]:
    """Return the pages by the server's name. All tests of a process share them; tests that ask are in one group."""
    if not _PAGES:
        _PAGES.update(_read(folder))
    return _PAGES


def _read(folder: Path) -> Mapping[str, str]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_KUBECONFIG))
    config = folder / "plugins.yaml"
    config.write_text(render().one("ConfigMap", "my-slo-pool-epp")["data"]["default-plugins.yaml"])
    flags = ("--kubeconfig", str(kubeconfig), "--pool-name", "pool", "--config-file", str(config))
    more = ("--ha-enable-leader-election", "--enable-latency-predictor", "--outcome-journal", str(folder / "outcomes"))
    pages = {}
    with picker_process(folder, *flags, *more, endpoints="", env={"NAMESPACE": "inference"}) as picker:
        pages["The picker"] = picker.metrics()
    embedded = ("--enable-latency-predictor", "--latency-client", "embedded", "--model-store", str(folder / "store"))
    with picker_process(folder, *embedded) as picker:
        pages["The picker"] += picker.metrics()
    with started(folder / "store") as trainer:
        pages["The trainer"] = call(f"{trainer.url}/metrics")[1]
    # Some metrics appear with the first linear model.
    with started(folder / "linear", "--model-type", "bayesian_ridge") as trainer:
        call(f"{trainer.url}/add_training_data_bulk", {"entries": entries(150)})
        until(lambda: "ttft_intercept" in call(f"{trainer.url}/metrics")[1])
        pages["The trainer"] += call(f"{trainer.url}/metrics")[1]
    with running_predictor(folder / "store") as url:
        pages["The predictor"] = call(f"{url}/metrics")[1]
    return pages
