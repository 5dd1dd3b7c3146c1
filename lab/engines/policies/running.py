"""Run one policy's requests through Envoy, the picker and real servers, and sum up what clients saw."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from headroom.gateway.clusters import BALANCING
from headroom.gateway.envoy import POLICY_HEADER
from headroom.processes.exceptions import PartError
from lab.engines.policies.journal import RunResult
from lab.engines.policies.plan import BASE, BASE_AGAIN, PolicyRun
from lab.engines.policies.speeds import ServerSpeed
from lab.evaluation.policies.configurations import TUNED_WEIGHTS, configurations
from lab.loop.configure import configure
from lab.loop.pages import get_json, newest_decisions, until_idle
from lab.loop.policies import PREDICTION_HEADER
from lab.loop.stack import StackConfig
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.workload import PlannedRequest

_IDLE_S, _MODELS_S = 60.0, 120.0


async def run_policy(
    config: StackConfig, model: str, run: PolicyRun, requests: Sequence[PlannedRequest], speeds: Sequence[ServerSpeed]
) -> RunResult:
    """Send the requests under the run's policy, and return the figures. Raise PartError if the pool stays busy."""
    policy = BASE if run.policy == BASE_AGAIN else run.policy
    headers = {POLICY_HEADER: policy} if policy in BALANCING else {PREDICTION_HEADER: "true"}
    if policy not in BALANCING:
        await configure(config, configurations(TUNED_WEIGHTS[0])[policy])
    outcomes = await replay(config.gateway_url, requests, model=model, headers=headers)
    try:
        await until_idle(config, _IDLE_S)
    except TimeoutError as error:
        raise PartError("requests are still in flight after the run") from error
    ids = {request.id for request in requests}
    newest = [] if policy in BALANCING else await newest_decisions(config, 2 * len(ids))
    return _result(run, outcomes, [one for one in newest if one["request_id"] in ids], speeds)


async def warm_up(config: StackConfig, model: str, requests: Sequence[PlannedRequest]) -> None:
    """Send load under the base policy until all prediction servers have models. Raise PartError if none come."""
    await configure(config, configurations(TUNED_WEIGHTS[0])[BASE])
    await replay(config.gateway_url, requests, model=model, headers={PREDICTION_HEADER: "false"})
    try:
        async with asyncio.timeout(_MODELS_S):
            while not all([(await get_json(f"{url}/status"))["is_ready"] for url in config.predictor_urls]):
                await asyncio.sleep(0.5)
    except TimeoutError as error:
        raise PartError(f"no model was published: see {config.folder / 'trainer.log'}") from error


def _result(
    run: PolicyRun, outcomes: Sequence[Outcome], decisions: Sequence[dict[str, Any]], speeds: Sequence[ServerSpeed]
) -> RunResult:
    answered = [outcome for outcome in outcomes if outcome.error is None]
    if not answered:
        raise PartError(f"no request was answered: {outcomes[0].error}")
    met = sum(outcome.met for outcome in outcomes)
    span_s = max(outcome.sent_s + outcome.e2e_ms / 1000 for outcome in outcomes)

    def percentile(latency: str, share: float) -> float:
        return round(float(np.percentile([getattr(one, latency) or 0.0 for one in answered], share)), 2)

    fastest = min(speeds, key=lambda speed: speed.tpot_ms).name
    return RunResult(
        run=run,
        attainment=met / len(outcomes),
        goodput_rps=met / span_s,
        errors=len(outcomes) - len(answered),
        ttft_p50_ms=percentile("ttft_ms", 50),
        ttft_p99_ms=percentile("ttft_ms", 99),
        tpot_p50_ms=percentile("tpot_ms", 50),
        e2e_p50_ms=percentile("e2e_ms", 50),
        e2e_p99_ms=percentile("e2e_ms", 99),
        to_fastest=_share(decision["endpoint"] == fastest for decision in decisions),
        predicted=_share(bool(decision["prediction"]) for decision in decisions),
    )


def _share(values: Any) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
