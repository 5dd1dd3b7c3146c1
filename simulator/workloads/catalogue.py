"""The workloads by name."""

from collections.abc import Callable
from importlib.resources.abc import Traversable

from simulator.trace import AZURE_CODE, AZURE_CONVERSATION, MOONCAKE_CONVERSATION, MOONCAKE_SYNTHETIC
from simulator.trace_formats import HASH_TOKENS as MOONCAKE_HASH_TOKENS
from simulator.workloads.arrival_times import bursts
from simulator.workloads.capacity import pool_tokens
from simulator.workloads.changes import degrading, halving, stall
from simulator.workloads.draw import Requests
from simulator.workloads.objectives import WIDE_MIX
from simulator.workloads.sessions import HASH_TOKENS as SESSION_HASH_TOKENS
from simulator.workloads.sessions import Sessions, draw_sessions
from simulator.workloads.synthetic import Lognormal, heavy_tailed, moderate
from simulator.workloads.traces import Trace
from simulator.workloads.workload import Endpoints, Workload

UNIFORM_POOL = ("h100-llama-3.1-8b",) * 8
MIXED_POOL = ("h100-llama-3.1-8b",) * 3 + ("a100-llama-3.1-8b",) * 3 + ("l40s-llama-3.1-8b",) * 2

CHATS = Sessions(
    applications=32,
    system_tokens=3_000,
    alive=320,
    mean_turns=8,
    user=Lognormal(median=200, sigma=1.0),
    answer=Lognormal(median=180, sigma=0.6),
)
# Median tokens of a session's document. Prompts are long, so that some hundred sessions fill the caches.
_DOCUMENT_TOKENS = 8_000
# Tokens of the sessions alive, as a multiple of the tokens that all caches of the pool hold.
_THRASH = 2.0


def _without_endpoints(draw: Callable[[int, int], Requests]) -> Callable[[int, int, Endpoints], Requests]:
    return lambda seed, count, endpoints: draw(seed, count)


def _chats(seed: int, count: int, endpoints: Endpoints) -> Requests:
    return draw_sessions(CHATS, seed, count)


def _thrashing(seed: int, count: int, endpoints: Endpoints) -> Requests:
    shape = Sessions(
        applications=64,
        system_tokens=2_000,
        alive=round(_THRASH * pool_tokens(endpoints) / _DOCUMENT_TOKENS),
        mean_turns=5,
        user=Lognormal(median=80, sigma=0.8),
        answer=CHATS.answer,
        document=Lognormal(median=_DOCUMENT_TOKENS, sigma=0.4),
    )
    return draw_sessions(shape, seed, count)


def azure_conversation(path: Traversable = AZURE_CONVERSATION) -> Workload:
    """Return the workload of the shipped sample, or of a trace file in any of the known formats."""
    trace = Trace(path)
    return Workload(
        name="azure-conversation",
        description="A production chat service (Azure, 2023): its lengths and arrival pattern, at a scaled rate.",
        pool=UNIFORM_POOL,
        draw=_without_endpoints(trace.draw),
        times=trace.times,
    )


def azure_code() -> Workload:
    """Return the workload of the shipped trace of a code service, whose requests come in bursts."""
    trace = Trace(AZURE_CODE)
    return Workload(
        name="azure-code",
        description="A production code service (Azure, 2023): long prompts, short answers, and strong bursts.",
        pool=UNIFORM_POOL,
        draw=_without_endpoints(trace.draw),
        times=trace.times,
        burstiness=4.0,
    )


def mooncake_conversation(path: Traversable = MOONCAKE_CONVERSATION) -> Workload:
    """Return the workload of the shipped sample, or of one of Mooncake's files."""
    return _mooncake(
        path,
        "mooncake-conversation",
        "A production chat service with long prompts (Mooncake, 2025) and their shared prefixes.",
    )


def mooncake_synthetic() -> Workload:
    """Return the workload of Mooncake's synthetic trace, in which prompts share most of their tokens."""
    return _mooncake(
        MOONCAKE_SYNTHETIC,
        "mooncake-synthetic",
        "Long prompts that share long prefixes, and short answers (Mooncake's synthetic trace, 2025).",
    )


def _mooncake(path: Traversable, name: str, description: str) -> Workload:
    trace = Trace(path)
    return Workload(
        name=name,
        description=f"{description} Sequences are cut to the engines' largest length.",
        pool=UNIFORM_POOL,
        draw=_without_endpoints(trace.draw),
        times=trace.times,
        hash_tokens=MOONCAKE_HASH_TOKENS,
    )


def _catalogue() -> list[Workload]:
    plain = _without_endpoints(moderate)
    return [
        azure_conversation(),
        azure_code(),
        mooncake_conversation(),
        mooncake_synthetic(),
        Workload(
            name="poisson",
            description="Independent users with prompts of moderate length, as queueing theory assumes.",
            pool=UNIFORM_POOL,
            draw=plain,
        ),
        Workload(
            name="bursts",
            description="The same requests, at four times the rate in bursts of 5 s as in the 20 s between bursts.",
            pool=UNIFORM_POOL,
            draw=plain,
            times=bursts,
        ),
        Workload(
            name="shared-prefix",
            description="Chats of several turns with 32 system prompts. The caches can hold them if used well.",
            pool=UNIFORM_POOL,
            draw=_chats,
            hash_tokens=SESSION_HASH_TOKENS,
        ),
        Workload(
            name="shared-prefix-thrash",
            description="Chats about long documents, with twice as many tokens as all caches together hold.",
            pool=UNIFORM_POOL,
            draw=_thrashing,
            hash_tokens=SESSION_HASH_TOKENS,
        ),
        Workload(
            name="heavy-tails",
            description="Lognormal lengths with Pareto tails: few requests bring most of the tokens.",
            pool=UNIFORM_POOL,
            draw=_without_endpoints(heavy_tailed),
        ),
        Workload(
            name="slo-mix",
            description="Users who wait for each word, users who read along, and background jobs, in equal shares.",
            pool=UNIFORM_POOL,
            draw=plain,
            mix=WIDE_MIX,
        ),
        Workload(
            name="heterogeneous",
            description="H100, A100 and L40S in one pool. The slower ones can meet only the looser objectives.",
            pool=MIXED_POOL,
            draw=plain,
        ),
        Workload(
            name="degrading",
            description="Two of eight endpoints become slower step by step, down to half speed.",
            pool=UNIFORM_POOL,
            draw=plain,
            changes=degrading,
        ),
        Workload(
            name="stall",
            description="One of eight endpoints stalls for 20 s in the middle, then continues as before.",
            pool=UNIFORM_POOL,
            draw=plain,
            changes=stall,
        ),
        Workload(
            name="halving",
            description="One of eight endpoints drops to half speed after two fifths of the time.",
            pool=UNIFORM_POOL,
            draw=plain,
            changes=halving,
        ),
    ]


WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _catalogue()}
