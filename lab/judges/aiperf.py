"""aiperf: the first requests of Mooncake's trace at the trace's own times, sped up to the wanted rate."""

import gzip
import json
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.judges.environment import Package, installed
from lab.judges.task import Arrivals, Command, Judgement, Task

PACKAGE = Package("aiperf", "0.13.0", 1.0)
# Mooncake's traces name each block of so many prompt tokens.
_BLOCK = 512
# aiperf finds local tokenizers only in the cache of Hugging Face's hub, where folders have these names.
_TOKENIZER, _REVISION = "headroom/tokenizer", "0" * 40
_SUMMARY, _REQUESTS = "profile_export_aiperf.json", "profile_export.jsonl"


def program() -> Path:
    return installed(PACKAGE)


def command(task: Task) -> Command:
    trace = task.folder / "trace.jsonl"
    trace.write_text("".join(f"{json.dumps(row)}\n" for row in excerpt(_rows(task.trace), task)))
    line: list[object] = [program(), "profile", "--model", task.model, "--url", task.url]
    line += ["--endpoint-type", "chat", "--streaming", "--tokenizer", _TOKENIZER, "--use-server-token-count"]
    line += ["--input-file", trace, "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]
    line += ["--goodput", f"time_to_first_token:{task.ttft_ms:g} inter_token_latency:{task.tpot_ms:g}"]
    for name, value in task.headers.items():
        # It refuses headers whose value looks like a number; the exponent makes it a text.
        line += ["-H", f"{name}:{value}e0" if value.replace(".", "").isdigit() else f"{name}:{value}"]
    line += ["--extra-inputs", "ignore_eos:true", "--random-seed", task.seed, "--output-artifact-dir", task.folder]
    line += ["--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--workers-max", 1, "--record-processors", 1]
    hub = _hub(task)
    return Command(line, {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


def excerpt(rows: Iterable[dict[str, Any]], task: Task) -> list[dict[str, Any]]:
    """Return the first requests, with longer ones cut to twice the wanted lengths, at the wanted rate.

    Answers of one token are given a second one: aiperf calls them bad, because they have no TPOT.
    """
    chosen = [row for row, _ in zip(rows, range(task.requests), strict=False)]
    first, last = chosen[0]["timestamp"], chosen[-1]["timestamp"]
    factor = 1000 * len(chosen) / task.rate_rps / max(1, last - first)
    shortened = []
    for row in chosen:
        tokens = min(row["input_length"], 2 * task.prompt_tokens)
        shortened.append(
            {
                "timestamp": round((row["timestamp"] - first) * factor),
                "input_length": tokens,
                "output_length": max(2, min(row["output_length"], 2 * task.output_tokens)),
                "hash_ids": row["hash_ids"][: -(-tokens // _BLOCK)],
            }
        )
    return shortened


def read(task: Task) -> Judgement:
    """Read its summary and its records. Its clock runs from its start, just before the first request, to its end."""
    found = json.loads((task.folder / _SUMMARY).read_text())
    requests = [_arrivals(json.loads(line)) for line in (task.folder / _REQUESTS).read_text().splitlines()]
    start, end = (datetime.fromisoformat(found[name]) for name in ("start_time", "end_time"))
    return Judgement(
        good=round(found["good_request_count"]["avg"]),
        total=len(requests),
        goodput_rps=found["goodput"]["avg"],
        duration_s=(end - start).total_seconds(),
        requests=requests,
    )


def _arrivals(record: dict[str, Any]) -> Arrivals:
    notes, values = record["metadata"], record["metrics"]
    sent = notes["request_start_ns"] / 1e9
    end = notes["request_end_ns"] / 1e9
    if record.get("error"):
        return Arrivals(sent, end, error=str(record["error"]))
    first = sent + values["time_to_first_token"]["value"] / 1000
    gaps_ms = values["inter_chunk_latency"]["value"] if "inter_chunk_latency" in values else []
    tokens = values["output_sequence_length"]["value"]
    return Arrivals(sent, end, first, first + sum(gaps_ms) / 1000, tokens)


def _rows(trace: Path) -> Iterable[dict[str, Any]]:
    with gzip.open(trace, "rt") if trace.suffix == ".gz" else trace.open() as file:
        for line in file:
            yield json.loads(line)


def _hub(task: Task) -> Path:
    """Lay the tokenizer into a hub's cache in the judge's folder, and return that cache."""
    hub = task.folder / "hub"
    model = hub / "hub" / f"models--{_TOKENIZER.replace('/', '--')}"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(_REVISION)
    snapshot = model / "snapshots" / _REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in task.tokenizer.glob("tokenizer*"):
        shutil.copy(file, snapshot)
    for file in task.tokenizer.glob("chat_template*"):
        shutil.copy(file, snapshot)
    return hub
