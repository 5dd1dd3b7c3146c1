"""inference-perf: groups of requests that share a system prompt, in chat form, with the objectives as headers."""

import json
from pathlib import Path

from lab.judges.environment import Package, installed
from lab.judges.task import Arrivals, Command, Judgement, Task

PACKAGE = Package("inference-perf", "0.7.0", 0.7, any_python=True)
_GROUPS = 8
_SUMMARY, _REQUESTS = "summary_lifecycle_metrics.json", "per_request_lifecycle_metrics.json"


def program() -> Path:
    return installed(PACKAGE)


def command(task: Task) -> Command:
    headers = dict(task.headers)
    ttft, tpot, *_ = headers
    half = max(1, task.prompt_tokens // 2)
    shared = {
        "num_groups": _GROUPS,
        "num_prompts_per_group": -(-task.requests // _GROUPS),
        "system_prompt_len": half,
        "question_len": half,
        "output_len": task.output_tokens,
    }
    settings = {
        "api": {
            "type": "chat",
            "streaming": True,
            "headers": headers,
            "slo_unit": "ms",
            "slo_ttft_header": ttft,
            "slo_tpot_header": tpot,
        },
        "data": {"type": "shared_prefix", "shared_prefix": shared},
        "load": {
            "type": "poisson",
            "stages": [{"rate": task.rate_rps, "duration": max(1, round(task.requests / task.rate_rps))}],
            "num_workers": 1,
            "base_seed": task.seed,
        },
        "server": {"type": "vllm", "model_name": task.model, "base_url": task.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(task.tokenizer)},
        "report": {
            "request_lifecycle": {"per_request": True, "use_server_output_tokens": True},
            "prometheus": None,
        },
        "storage": {"local_storage": {"path": str(task.folder)}},
    }
    # Every JSON document is YAML.
    file = task.folder / "inference-perf.yaml"
    file.write_text(json.dumps(settings, indent=2) + "\n")
    # pip wrote the command for the folder's first name.
    python = program().with_name("python")
    return Command([python, "-m", "inference_perf.main", "-c", file], {"HF_HUB_OFFLINE": "1"})


def read(task: Task) -> Judgement:
    """Read its summary, which counts answered requests alone, and the times of each token.

    Its clock runs from the first request to the end of the last answer.
    """
    found = json.loads((task.folder / _SUMMARY).read_text())
    goodput = found["successes"]["goodput_metrics"]
    requests = []
    for entry in json.loads((task.folder / _REQUESTS).read_text()):
        answer = (entry["info"] or {}).get("response_metrics") or {}
        times = answer.get("output_token_times") or [None]
        requests.append(
            Arrivals(
                sent_s=entry["start_time"],
                end_s=entry["end_time"],
                first_s=times[0],
                last_s=times[-1],
                tokens=(answer.get("server_usage") or {}).get("completion_tokens", len(times)),
                error=str(entry["error"]) if entry["error"] else None,
            )
        )
    good, rate = goodput["good_requests"], goodput["request_goodput"]
    answered = [one for one in requests if one.error is None]
    duration = max(one.end_s for one in answered) - min(one.sent_s for one in answered)
    return Judgement(good, goodput["total_requests"] + found["failures"]["count"], rate, duration, requests)
