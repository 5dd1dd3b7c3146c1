"""guidellm: synthetic prompts in chat form, Poisson arrivals."""

import json
from pathlib import Path
from typing import Any

from lab.judges.environment import Package, installed
from lab.judges.task import Arrivals, Command, Judgement, Task

PACKAGE = Package("guidellm", "0.8.1", 5.0)
_FILE = "guidellm.json"


def program() -> Path:
    return installed(PACKAGE)


def command(task: Task) -> Command:
    backend = {
        "kind": "openai_http",
        "target": task.url,
        "model": task.model,
        "extras": {"headers": task.headers},
    }
    data = {
        "kind": "synthetic_text",
        "prompt_tokens": task.prompt_tokens,
        "prompt_tokens_stdev": task.prompt_tokens // 4,
        "output_tokens": task.output_tokens,
        "output_tokens_stdev": task.output_tokens // 4,
        "output_tokens_min": 2,
    }
    metrics = {"kind": "generative", "slo": {"ttft_ms": task.ttft_ms, "tpot_ms": task.tpot_ms}}
    line: list[object] = [program(), "run", "--backend", json.dumps(backend), "--data", json.dumps(data)]
    line += ["--metrics", json.dumps(metrics), "--tokenizer", f"kind=hf_auto,model={task.tokenizer}"]
    line += ["--profile", f"kind=poisson,rate={task.rate_rps:g}"]
    line += ["--constraint", f"kind=max_requests,count={task.requests}"]
    line += ["--seed", f"kind=static,value={task.seed}"]
    line += ["--output", f"kind=json,path={_file(task.folder)}", "--disable-progress"]
    # Each of its processes loads torch, and together they would overload a small machine.
    return Command(line, {"HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"})


def read(task: Task) -> Judgement:
    """Read its report. Its clock runs from the first request to the end of the last answer."""
    found = json.loads(_file(task.folder).read_text())["benchmarks"][0]
    metrics, groups = found["metrics"], found["requests"]
    requests = [_arrivals(request) for kind in ("successful", "errored") for request in groups[kind] or ()]
    total = metrics["slo_determined_requests"]
    return Judgement(
        good=round((metrics["slo_attainment"] or 0.0) * total),
        total=total,
        goodput_rps=metrics["request_goodput"]["successful"]["mean"] if metrics["request_goodput"] else 0.0,
        duration_s=found["duration"],
        requests=requests,
    )


def _arrivals(request: dict[str, Any]) -> Arrivals:
    times = request["info"]["timings"]
    return Arrivals(
        sent_s=times["request_start"],
        end_s=times["request_end"],
        first_s=times["first_token_iteration"],
        last_s=times["last_token_iteration"],
        tokens=request["output_tokens"] or 0,
        error=request["info"]["error"],
    )


def _file(folder: Path) -> Path:
    return folder / _FILE
