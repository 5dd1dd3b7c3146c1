"""Virtual time and ext_proc drive the same picker: the same events lead to the same decisions, state and rows."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest

from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.training import TrainingSink
from epp.prediction.wire import TrainingBatch
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog
from epp.request.director import Director
from epp.request.outcomes import Outcomes
from epp.request.parsed import ParsedRequest, RequestReader
from epp.request.routed import Bookkeeping, RoutedRequest
from epp.request.tokens import TokenEstimator
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from lab.evaluation.policies import picker as virtual
from lab.evaluation.policies.picker import Picker, VirtualPredictor
from lab.evaluation.replay.learning import LearningSettings, Models, VirtualTrainer, samples_of
from lab.evaluation.studies.rows import RecordingTrainer
from simulator.arrival import Arrival
from simulator.cluster import Cluster
from simulator.hardware import hardware
from tests.epp.parts import Gateway
from trainer.wire import decode_batch

HARDWARE = ("fast", "slow", "fast")
REQUESTS, REQUESTS_PER_S = 150, 30.0
SEED = 3
NO_FITS = LearningSettings(min_new_rows=1 << 30)
SCHEDULER = load_scheduler(DEFAULT_CONFIG, {})
# Tokens in one block of the picker's prefix index, by its estimate of four bytes a token.
HASH_TOKENS = SCHEDULER.prefix.hash_block_size // 4
EVENT = b'data: {"choices":[{"text":"a"}]}\n\n'


@dataclass(frozen=True)
class Asked:
    """A request as the engine and as the gateway see it."""

    arrival: Arrival
    body: bytes


@dataclass
class Events:
    """The events that an ext_proc exchange would see, in order, each with the time of the picker's clock."""

    happened: list[tuple[str, float, int, Any]] = field(default_factory=list)

    def note(self, kind: str, now_s: float, index: int = 0, value: Any = None) -> None:
        self.happened.append((kind, now_s, index, value))


def asked() -> list[Asked]:
    """Prompts with common beginnings and of many lengths, answers of one token to 150, tight and loose objectives."""
    rng = np.random.default_rng(SEED)
    reader, now_s, found = RequestReader(TokenEstimator()), 0.0, []
    for index in range(REQUESTS):
        now_s += float(rng.exponential(1 / REQUESTS_PER_S))
        text = f"application {rng.integers(4)} " * 40 + f"{index} " * int(rng.integers(20, 900))
        body = json.dumps({"model": "model", "prompt": text}).encode()
        parsed = reader.read({":path": "/v1/completions"}, body, SCHEDULER.prefix)
        assert isinstance(parsed, ParsedRequest)
        tokens, hashes = parsed.request.input_tokens, parsed.request.block_hashes
        output_tokens = int(rng.choice([1, 2, 20, 80, 150]))
        slos_ms = float(rng.uniform(50, 900)), float(rng.uniform(10, 60))
        found.append(Asked(Arrival(index, now_s, tokens, output_tokens, hashes, "any", *slos_ms), body))
    return found


def in_virtual_time(
    requests: Sequence[Asked], trainer: VirtualTrainer, events: Events, monkeypatch: pytest.MonkeyPatch
) -> Picker:
    """Let the cluster drive a picker, and note every event that a gateway would see as well."""
    picker = Picker(len(HARDWARE), SCHEDULER, HASH_TOKENS, SEED, trainer)
    picker.director.books = dataclasses.replace(picker.director.books, decisions=DecisionLog(REQUESTS))
    cluster = Cluster([hardware(name) for name in HARDWARE], HASH_TOKENS, picker)
    picker.attach(cluster)

    def scrape(now_s: float) -> None:
        gauges = [(engine.waiting, engine.running, engine.kv_usage) for engine in cluster.engines]
        events.note("scrape", now_s, value=gauges)
        picker.scrape(cluster, now_s)

    with monkeypatch.context() as patched:
        for owner, name in ((Director, "route"), (RoutedRequest, "tokens_came"), (RoutedRequest, "ended")):
            patched.setattr(owner, name, _noting(getattr(owner, name), name, events))
        cluster.run([one.arrival for one in requests], tick=scrape)
    return picker


def _noting(method: Callable[..., Any], name: str, events: Events) -> Callable[..., Any]:
    def noted(self: Any, first: Any, *rest: Any) -> Any:
        match name:
            case "route":
                events.note("arrival", rest[1], int(first.request.id))
            case "tokens_came":
                events.note("tokens", rest[0], int(self.parsed.request.id), first)
            case "ended":
                events.note("end", first, int(self.parsed.request.id))
        return method(self, first, *rest)

    return noted


async def through_ext_proc(requests: Sequence[Asked], models: Models, events: Events) -> Director:
    now_s = 0.0

    def clock() -> float:
        return now_s

    pool = Pool(PrefixIndex(virtual.PREFIX_INDEX_TOKENS // HASH_TOKENS), virtual.STALENESS_S, clock=clock)
    pool.replace_endpoints(virtual.endpoints_of(len(HARDWARE)))
    budget = ObservationBudget(virtual.OBSERVED_RESPONSES_PER_S, virtual.OBSERVED_TOKENS_PER_S)
    outcomes = Outcomes(Metrics(), TrainingSink("http://127.0.0.1:1", 100_000, 1, 1), pool.slowdowns)
    books = Bookkeeping(pool, outcomes, DecisionLog(REQUESTS), budget, TokenEstimator())
    latency = VirtualPredictor(VirtualTrainer(NO_FITS, models), clock)
    director = Director(SCHEDULER, books, latency, rng=np.random.default_rng(SEED), clock=clock)
    gateways: dict[int, Gateway] = {}
    for kind, now_s, index, value in events.happened:  # noqa: B007  The clock reads it.
        match kind:
            case "scrape":
                for slot, gauges in enumerate(value):
                    pool.record_metrics(slot, *gauges)
            case "arrival":
                gateways[index] = gateway = Gateway(director)
                await gateway.request_headers(**_headers(requests[index].arrival))
                await gateway.request_body(requests[index].body)
                await gateway.response_headers()
            case "tokens":
                await gateways[index].response_body(EVENT * value)
            case "end":
                gateways.pop(index).exchange.close()
    assert not gateways
    return director


def _headers(arrival: Arrival) -> dict[str, str]:
    return {
        ":path": "/v1/completions",
        "x_request_id": str(arrival.index),
        "x_prediction_based_scheduling": "true",
        "x_slo_ttft_ms": repr(arrival.slo_ttft_ms),
        "x_slo_tpot_ms": repr(arrival.slo_tpot_ms),
    }


def bits(value: Any) -> Any:
    """Return all numbers of a value in a form that is equal only where every bit is."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return tuple(bits(getattr(value, one.name)) for one in dataclasses.fields(value))
    if isinstance(value, float):
        return value.hex()
    return value


def decided(books: Bookkeeping) -> list[Any]:
    """Return each decision with its candidates' features and predictions, and what became of the request."""
    return [
        (
            one.decision.request.id,
            one.decision.profile,
            one.decision.chosen,
            bits(one.decision.candidates),
            bits(one.outcome),
        )
        for one in books.decisions.newest(REQUESTS)
    ]


def state(pool: Pool) -> Any:
    numbers = pool._state
    shared = numbers.own, numbers.scraped, numbers.own_by_tpot_slo, pool.slowdowns.factors
    return *map(bits, shared), bits(pool.everyone())


def learnt_from(requests: Sequence[Asked], monkeypatch: pytest.MonkeyPatch) -> Models:
    """Return models of what the picker teaches while it decides without predictions."""
    taught = RecordingTrainer(NO_FITS)
    in_virtual_time(requests, taught, Events(), monkeypatch)
    trainer = VirtualTrainer(LearningSettings())
    for row in taught.rows:
        trainer.add(*row)
    assert trainer.refit_if_due(0.0)
    return trainer.models()


def test_both_drivers_lead_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, events = asked(), Events()
    models = learnt_from(requests, monkeypatch)
    monkeypatch.setattr(virtual, "OBSERVED_RESPONSES_PER_S", 15.0)
    trainer = RecordingTrainer(NO_FITS, models)
    ours = in_virtual_time(requests, trainer, events, monkeypatch).director.books
    theirs = asyncio.run(through_ext_proc(requests, models, events)).books
    records = list(theirs.decisions.newest(REQUESTS))
    observed = sum(record.outcome.ttft_ms is not None for record in records)
    assert REQUESTS / 4 < observed < REQUESTS, "some responses are observed, and some are not"
    assert {record.decision.profile for record in records} == {"slo"}
    assert len({record.decision.chosen for record in records}) == len(HARDWARE)
    assert decided(ours) == decided(theirs)
    assert state(ours.pool) == state(theirs.pool)
    sink = theirs.outcomes.training
    assert isinstance(sink, TrainingSink)
    sent = decode_batch(msgspec.json.encode(TrainingBatch(sink.queued())))
    assert len(sent) > 3 * observed
    assert bits(samples_of(trainer.rows)) == bits(sent)
