"""`vllm bench serve`, from the environment of vLLM. Random prompts, Poisson arrivals."""

import json
from pathlib import Path

from lab.engines.environment import build
from lab.judges.task import Arrivals, Command, Judgement, Task

_FILE = "vllm-bench.json"


def program() -> Path:
    return build()[0]


def command(task: Task) -> Command:
    line: list[object] = [program(), "bench", "serve", "--backend", "openai", "--base-url", task.url]
    line += ["--model", task.model, "--tokenizer", task.tokenizer, "--dataset-name", "random"]
    line += ["--random-input-len", task.prompt_tokens, "--random-output-len", task.output_tokens]
    line += ["--random-range-ratio", 0.5, "--num-prompts", task.requests, "--request-rate", task.rate_rps]
    line += ["--ignore-eos", "--seed", task.seed, "--disable-tqdm"]
    line += ["--goodput", f"ttft:{task.ttft_ms:g}", f"tpot:{task.tpot_ms:g}"]
    line += ["--header", *(f"{name}={value}" for name, value in task.headers.items())]
    line += ["--save-result", "--save-detailed", "--result-dir", task.folder, "--result-filename", _FILE]
    return Command(line, {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})


def read(task: Task) -> Judgement:
    """Read its result. Its clock runs from before the first connection until all requests have ended."""
    found = json.loads((task.folder / _FILE).read_text())
    columns = (found[name] for name in ("start_times", "latencies", "ttfts", "itls", "output_lens", "errors"))
    requests = [
        Arrivals(
            sent_s=sent,
            end_s=sent + latency,
            first_s=None if error else sent + ttft,
            last_s=None if error else sent + ttft + sum(gaps),
            tokens=tokens,
            error=error or None,
        )
        for sent, latency, ttft, gaps, tokens, error in zip(*columns, strict=True)
    ]
    goodput, duration = found["request_goodput"], found["duration"]
    return Judgement(round(goodput * duration), found["completed"] + found["failed"], goodput, duration, requests)
