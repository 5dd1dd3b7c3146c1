"""The comparison's figures, as JSON and as the section of the evaluation's page."""

from collections.abc import Sequence
from typing import Any

from lab.engines.environment import VERSION
from lab.engines.policies.journal import RunJournal, RunResult, Settings
from lab.engines.policies.plan import BASE, BASE_AGAIN, OBJECTIVES, POLICIES
from lab.evaluation.report.statistics import mean_interval
from lab.loop.report import machine_and_versions
from lab.markdown import table

_HEAD = """\
`scripts/evaluate_engines.py` runs the whole loop, with Envoy, in front of real vLLM {version} servers.

- **Servers**: {kinds}, with models of random weights, each pinned to a core of its own.
- **Machine**: {cores} cores of {cpu}. The loop and the client run on the servers' cores.
- **Requests**: arrivals and lengths of `{workload}`, with prompts cut to {prompt} and answers to {output} tokens.
- **Runs**: in each round all policies get the same requests, in shuffled order. `{base}` runs twice a round: the
  difference between the two runs is the machine's noise. Intervals are of 95 %."""
_KINDS = list(OBJECTIVES)
_COLUMNS = (
    ("attainment, %", "attainment", 100),
    ("goodput, requests/s", "goodput_rps", 1),
    ("TTFT p50, ms", "ttft_p50_ms", 1),
    ("TTFT p99, ms", "ttft_p99_ms", 1),
    ("TPOT p50, ms", "tpot_p50_ms", 1),
    ("end-to-end p50, ms", "e2e_p50_ms", 1),
    ("to the fastest, %", "to_fastest", 100),
)


def document(journal: RunJournal, settings: Settings) -> dict[str, Any]:
    """Return figures, results, speeds, machine and settings."""
    figures = {}
    for objectives, policies in by_policy(journal).items():
        for policy, results in policies.items():
            name = policy.replace("-", "_")
            figures[f"real_slo_attainment_{name}_{objectives}"] = mean_interval(
                [one.attainment for one in results]
            ).mean
    return {
        "figures": figures,
        "speeds": journal.speeds,
        "runs": list(journal.results.values()),
        "settings": settings,
        **machine_and_versions(),
    }


def by_policy(journal: RunJournal) -> dict[str, dict[str, list[RunResult]]]:
    """Return the results by objectives and policy, in the order of rounds. The base policy's second runs come last."""
    found: dict[str, dict[str, list[RunResult]]] = {}
    order = sorted(journal.results.values(), key=lambda one: (one.run.round, _place(one.run.policy)))
    for result in sorted(order, key=lambda one: _KINDS.index(one.run.objectives)):
        found.setdefault(result.run.objectives, {}).setdefault(result.run.policy, []).append(result)
    return found


def _place(policy: str) -> int:
    return POLICIES.index(policy) if policy in POLICIES else len(POLICIES) + (policy == BASE_AGAIN)


def section(journal: RunJournal, settings: Settings) -> str:
    """Return the tables as Markdown."""
    parts = [_speeds(journal)]
    for objectives, policies in by_policy(journal).items():
        wanted = OBJECTIVES[objectives]
        server = "slowest" if wanted.of_slowest else "fastest"
        parts += [
            f"Objectives of {wanted.multiple:g} times what a request takes alone on the {server} server "
            f"(`{objectives}`), {settings.requests} requests a run at {settings.load:g} of the capacity:",
            _policies(policies),
            _gains(policies),
        ]
    return "\n\n".join(part for part in parts if part)


def page_section(journal: RunJournal, settings: Settings) -> str:
    """Return the section of the evaluation's page: how the runs were made, and their tables."""
    made = machine_and_versions()["machine"]
    head = _HEAD.format(
        kinds=" and ".join(f"`{kind}`" for kind in settings.kinds),
        version=VERSION,
        cores=made["cores"],
        cpu=made["cpu"],
        workload=settings.workload,
        prompt=settings.max_prompt_tokens,
        output=settings.max_output_tokens,
        base=BASE,
    )
    return f"{head}\n\n{section(journal, settings)}"


def _speeds(journal: RunJournal) -> str:
    head = ("server", "TTFT, ms", "TTFT, ms per prompt token", "TPOT, ms", "capacity, requests/s")
    rows = [
        (s.name, f"{s.ttft_ms:.1f}", f"{s.ttft_ms_per_token:.3f}", f"{s.tpot_ms:.1f}", f"{s.capacity_rps:.2f}")
        for s in journal.speeds
    ]
    return table(head, rows)


def _policies(policies: dict[str, list[RunResult]]) -> str:
    rows = [
        (policy, str(len(results)), *(_interval(results, name, scale) for _, name, scale in _COLUMNS))
        for policy, results in policies.items()
    ]
    return table(("policy", "runs", *(head for head, *_ in _COLUMNS)), rows)


def _interval(results: Sequence[RunResult], name: str, scale: float) -> str:
    values = [getattr(one, name) * scale for one in results if getattr(one, name) is not None]
    return mean_interval(values).text() if values else "-"


def _gains(policies: dict[str, list[RunResult]]) -> str:
    """Return what each policy attains more than the base policy in the same round, in points."""
    base = {one.run.round: one.attainment for one in policies.get(BASE, ())}
    rows = []
    for policy, results in policies.items():
        gains = [100 * (one.attainment - base[one.run.round]) for one in results if one.run.round in base]
        if policy != BASE and gains:
            name = "the machine's noise (the same policy again)" if policy == BASE_AGAIN else policy
            rows.append((name, mean_interval(gains).text()))
    return table((f"attainment over `{BASE}` with the same requests", "points"), rows) if rows else ""
