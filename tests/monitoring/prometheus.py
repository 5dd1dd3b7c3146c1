"""A real Prometheus that scrapes servers of this machine as if they were pods of the chart."""

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from headroom.processes.ports import free_port
from tests.live import PATIENCE_S, call, until

NAMESPACE, POD = "inference", "my-slo-pool-epp-0"
_DURATION = re.compile(r"\b(\d+)([mh])\b")
_SECONDS = {"m": 60, "h": 3600}


@dataclass(frozen=True)
class Target:
    """A container that is scraped: its name, and where its metrics page is."""

    container: str
    address: str


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the expression's series at present, without those that are no number."""
        status, answer = call(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert status == 200, answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return [one for one in found if one["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = call(f"{self.url}/api/v1/alerts")[1]["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def program(name: str) -> str:
    """Return Prometheus' program of this name; skip the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus)")
    return found


@contextmanager
def prometheus(folder: Path, targets: Sequence[Target], rules: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Run Prometheus with these rules until the end of the block. It scrapes every second."""
    folder.mkdir(parents=True)
    (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
    scraped = [
        {"targets": [one.address], "labels": {"namespace": NAMESPACE, "pod": POD, "container": one.container}}
        for one in targets
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "pods", "static_configs": scraped}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus"), f"--config.file={folder / 'prometheus.yaml'}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: process.poll() is not None or _is_ready(f"http://{address}"), PATIENCE_S)
            assert process.poll() is None, (folder / "log").read_text()
            yield Prometheus(f"http://{address}")
        finally:
            process.kill()


def _is_ready(url: str) -> bool:
    try:
        return call(f"{url}/-/ready")[0] == 200
    except OSError:
        return False


def faster(rules: Mapping[str, Any], times: int) -> dict[str, Any]:
    """Return rules whose windows and waits are so many times shorter. Bounds of values stay as they are."""

    def shorter(found: re.Match[str]) -> str:
        return f"{max(int(found[1]) * _SECONDS[found[2]] // times, 1)}s"

    changed: dict[str, Any] = json.loads(json.dumps(rules))
    for group in changed["groups"]:
        for rule in group["rules"]:
            for key in rule.keys() & {"expr", "for"}:
                rule[key] = _DURATION.sub(shorter, rule[key])
    return changed
