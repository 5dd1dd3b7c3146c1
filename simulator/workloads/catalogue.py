"""The workloads by name."""

from collections.abc import Callable
from importlib.resources.abc import Traversable

from simulator.trace import AZURE_CONVERSATION, MOONCAKE_CONVERSATION
from simulator.trace_formats import HASH_TOKENS as MOONCAKE_HASH_TOKENS
from simulator.workloads.capacity import pool_tokens
from simulator.workloads.changes import degrading, halving, stall
from simulator.workloads.clocks import bursts
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
# A session about a document, whose prompts are long, so that some hundred sessions fill the caches.
_DOCUMENT_TOKENS = 8_000
# The sessions alive have so many times the tokens that all caches of the pool hold.
_THRASH = 2.0


def _unshared(draw: Callable[[int, int], Requests]) -> Callable[[int, int, Endpoints], Requests]:
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
    """From the sample that ships, or from a file in any of the formats that traces are published in."""
    trace = Trace(path)
    return Workload(
        name="azure-conversation",
        description="A production chat service (Azure, 2023): its lengths and its pattern of arrival, scaled in rate.",
        pool=UNIFORM_POOL,
        draw=_unshared(trace.draw),
        times=trace.times,
    )


def mooncake_conversation(path: Traversable = MOONCAKE_CONVERSATION) -> Workload:
    """From the sample that ships, or from one of Mooncake's files."""
    trace = Trace(path)
    return Workload(
        name="mooncake-conversation",
        description="A production chat service of long prompts (Mooncake, 2025), with the prefixes that they share;"
        " sequences are cut to what the engines take.",
        pool=UNIFORM_POOL,
        draw=_unshared(trace.draw),
        times=trace.times,
        hash_tokens=MOONCAKE_HASH_TOKENS,
    )


def _catalogue() -> list[Workload]:
    plain = _unshared(moderate)
    return [
        azure_conversation(),
        mooncake_conversation(),
        Workload(
            name="poisson",
            description="Independent users with prompts of moderate length: what queueing theory assumes.",
            pool=UNIFORM_POOL,
            draw=plain,
        ),
        Workload(
            name="bursts",
            description="The same requests, four times as many a second in bursts of 5 s as in the 20 s between them.",
            pool=UNIFORM_POOL,
            draw=plain,
            times=bursts,
        ),
        Workload(
            name="shared-prefix",
            description="Chats of several turns over 32 system prompts, which the caches hold if used well.",
            pool=UNIFORM_POOL,
            draw=_chats,
            hash_tokens=SESSION_HASH_TOKENS,
        ),
        Workload(
            name="shared-prefix-thrash",
            description="Chats about long documents, of twice as many tokens as all caches together hold.",
            pool=UNIFORM_POOL,
            draw=_thrashing,
            hash_tokens=SESSION_HASH_TOKENS,
        ),
        Workload(
            name="heavy-tails",
            description="Lognormal lengths with Pareto tails: few requests bring most of the tokens.",
            pool=UNIFORM_POOL,
            draw=_unshared(heavy_tailed),
        ),
        Workload(
            name="slo-mix",
            description="Equal shares of users who wait for each word, users who read along, and background jobs.",
            pool=UNIFORM_POOL,
            draw=plain,
            mix=WIDE_MIX,
        ),
        Workload(
            name="heterogeneous",
            description="H100, A100 and L40S in one pool: the slower ones can meet none but the looser objectives.",
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
            description="One of eight endpoints stands still for 20 s in the middle, then goes on as before.",
            pool=UNIFORM_POOL,
            draw=plain,
            changes=stall,
        ),
        Workload(
            name="halving",
            description="One of eight endpoints halves its speed at once, after two fifths of the time.",
            pool=UNIFORM_POOL,
            draw=plain,
            changes=halving,
        ),
    ]


WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _catalogue()}
