"""The evaluation report's prose: method, assumptions, and explanations of its tables."""

from collections.abc import Sequence

from headroom.report.intervals import CONFIDENCE
from lab.evaluation.plan import (
    BASE,
    COMMON_IF_NEVER,
    INFORMED,
    LLMD_DEFAULT,
    LLMD_PREDICTED,
    ORACLE,
    OURS,
    SHEDDING,
    SHEDDING_ORACLE,
)
from lab.evaluation.policies.picker import (
    EVERY_TOKENS,
    OBSERVED_RESPONSES_PER_S,
    OBSERVED_TOKENS_PER_S,
    SCRAPE_S,
    TOKEN_DELAY_MS,
    TOKEN_DELAY_SIGMA,
)
from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.replay.preparing import LEARNING_REQUESTS, LEARNING_S, LOADS, TUNING_LOADS, TUNING_S
from lab.evaluation.replay.replay import LEARNING, WARM_UP_SHARE
from lab.evaluation.studies.futures import FUTURES, LAST, PASTS
from lab.evaluation.studies.rows import LOAD as ROWS_LOAD
from lab.evaluation.studies.state_aware import SECONDS as AWARE_S


def _joined(numbers: Sequence[float]) -> str:
    *most, last = (f"{number:g}" for number in numbers)
    return f"{', '.join(most)} and {last}" if most else last


METHOD = f"""\
Requests are replayed in virtual time. A discrete-event simulation of a pool of vLLM engines runs them, and a policy
places each request when it arrives. All policies get the same requests at the same rate and seed. At another rate, the
same requests come with other gaps.

- **SLO attainment** is the share of the judged requests that met both their TTFT and their TPOT objective. Requests of
  the warm-up aren't judged. A shed request counts as missed.
- **Goodput at 90% (99%)** is the largest rate at which at least that share of the requests meets its objectives. Rates
  lie on a geometric grid. The search strides over the grid until one rate attains the share and a higher one doesn't.
  Then it bisects down to neighbouring rates and interpolates between them. The first seed's search begins at the rate
  found for `{BASE}`, that of other seeds at the policy's rate for the first seed. `≥` and `≤` mark ends of the grid.
- **Runs are cut** in the search, and only there, as soon as fewer than {LEAST_ATTAINMENT:.0%} of the judged requests
  can still meet their objectives. A request that has waited for longer than its TTFT objective has missed it. The
  search takes every attainment below {LEAST_ATTAINMENT:.0%} as {LEAST_ATTAINMENT:.0%}, and pictures end there.
- **The common load** of a workload is the rate at which `{BASE}` attains 90%: the geometric mean over seeds, rounded to
  the grid. On some workloads `{BASE}` attains 90% at no rate, because an endpoint is too slow for some objectives at
  any load. There, the common load is {COMMON_IF_NEVER:g} of the typical rate. Ratios over `{BASE}` are then ratios of
  bounds: the true ratios could be arbitrarily large.
- **Intervals**, in brackets, are Student's t intervals over seeds at {CONFIDENCE:.0%}. Intervals of goodputs and ratios
  are computed on logarithms. Ratios are paired by seed. A median over workloads is taken for each seed separately. Its
  interval shows the effect of other draws of requests, and not of other workloads.
- **Verdicts**: *met* if the whole interval lies inside the wanted range, *missed* if it lies outside, else *unsure*.
- **One preparation for all seeds**: the models and tuned weights at the start of a run are made once per workload, from
  traffic that isn't judged. Intervals over seeds show the effect of other requests, and not of other training.
- **Fairness** is Jain's index of output tokens over endpoints, each divided by the endpoint's capacity; 1 is even.
- **Errors** of predictions are median absolute percentage errors. They cover requests that the model had not seen and
  that ended before the last arrival. After the last arrival the pool empties, and is faster than any model has seen.
- **Coverage** is the share of latencies below their predicted 0.9-quantile.
- **Recovery** is the time from an endpoint's change of speed to the end of the first recovered period. From that period
  on, both median errors, as means over seeds, are within bounds for two periods in a row. If errors never recover, the
  figure is the time to the run's last period. Only requests on the changed endpoint count, and not those in progress at
  the change.
- **The cost of a decision** is wall time on this machine. No other figure depends on the machine."""

OBJECTIVES = """\
Objectives are multiples of a request's unloaded latencies: those of the request alone, on an idle endpoint of the
pool's fastest hardware, with nothing cached. A prompt counts as at least as long as the workload's median prompt."""
ASSUMPTIONS = f"""\
- Engines do what decides the latencies of vLLM: continuous batching, chunked prefill within a token budget, paged KV
  memory with preemption, prefix caching, and queues ([simulator.md](simulator.md)).
- The cost of a step is composed of published kernel times. `simulator/calibration` says how, and lists the assumptions.
  Hardware has no noise: equal steps take equally long.
- Policies that read metrics read them every {SCRAPE_S * 1000:g} ms from all endpoints at once. The picker's own
  default is up to 500 ms, which [costs it no goodput](epp.md#what-fresh-metrics-are-worth).
- A decision takes no virtual time. The network takes none either.
- Policies know the exact length of each prompt and the hashes of its pieces.
- Only the oracles know lengths of outputs. They also know every engine's state and costs.
- `{INFORMED}` knows every engine's state and costs, but no lengths. It expects an answer to be as long as the mean of
  the workload's answers, in other traffic, that are longer than the tokens generated so far. The difference between
  `{INFORMED}` and `{ORACLE}` is knowledge that no router can have.
- Learning has production's delays. Models are refitted every {LEARNING.interval_s:g} s if there are at least
  {LEARNING.min_new_rows:,} new rows. They serve {LEARNING.delay_s:g} s later: the time to fit them and to send them to
  a predictor. A training server needs fewer rows and shorter intervals, so its models are more recent than these.
- The picker observes responses within its default budget of {OBSERVED_RESPONSES_PER_S:g} responses and
  {OBSERVED_TOKENS_PER_S:,.0f} tokens per second. It looks at each response every {EVERY_TOKENS} tokens.
- While the picker observes a response on an endpoint, it sees the end of each of the endpoint's steps. A token arrives
  {TOKEN_DELAY_MS:g} ms after its step in the median, lognormal with a sigma of {TOKEN_DELAY_SIGMA:g}.
- `{LLMD_DEFAULT}` and `{LLMD_PREDICTED}` are llm-d's configuration files of its guides "optimized baseline" and
  "predicted latency routing" (for requests with objectives), as of autumn 2026. Files and formulas are llm-d's: this
  project's picker runs the files, and its plugins of these names have the formulas. Ours are the prefix index, the
  counts of requests and tokens in flight, the features, the trainer and the models. As llm-d's picker does, the two
  observe every response. llm-d's chart has its models fit means; here `{LLMD_PREDICTED}` decides by 0.9-quantiles,
  with which more of its requests met their objectives on mooncake-synthetic than with medians.
- `{LLMD_DEFAULT}` keeps llm-d's default for the peak rate of prefill, which the guide measured on larger models. It
  decides how long a queue may become before cached prefixes no longer bind a request.
- The first {WARM_UP_SHARE:.0%} of each run's time fills the pool and isn't judged.
- Warm models and tuned weights come from other traffic ([workloads.md](workloads.md) describes the workloads). The
  models saw {LEARNING_S:g} s and at least {LEARNING_REQUESTS:,} requests at each of {_joined(LOADS)} times the typical
  rate. The weights were tuned for {TUNING_S:g} s at each of {_joined(TUNING_LOADS)} times the typical rate."""
QUALITY = f"""\
The rows come from a separate run, at {ROWS_LOAD:g} of the typical rate and placed by the slo profile. Models are fitted
to the first part of the rows and judged on the rest. Pinball losses are of the logarithm of the latency. The bias is
the median of log(observed / predicted median). The noise floor is estimated from differences between neighbouring rows.
It is an upper bound of the noise that no model of these features could predict."""
BOUNDS = f"""\
The first table has goodput ratios as medians over workloads. It shows how much of the goodput targets a policy could
gain.

- `{ORACLE}` knows each engine's state and costs, and the length of every answer.
- `{INFORMED}` knows the same, except for lengths, which nobody can know.
- Both serve all requests, as `{OURS}` does. If they miss a target, better predictions can't make such a policy meet it.
- `{SHEDDING}` is `{OURS}` with shedding: it sheds a request that would make more requests miss their objectives than it
  meets. `{SHEDDING_ORACLE}` is the oracle with the same shedding."""
TPOT_BOUNDS = f"""\
The next table has errors of predicted TPOT at the common load, and two bounds of them.

- **The unknown future**: a replay is deterministic. With the same requests up to a moment, the pool has the same state
  at that moment, down to the last token. {PASTS} such moments are each followed by {FUTURES} futures. A future has
  requests of another seed, and other lengths of the answers in progress. Each length is drawn from those above the
  tokens generated so far. The TPOTs of the last {LAST} requests before the moment differ between futures. No router
  could predict this difference, even if it knew everything about the present.
- **The unknown present**: the first part of a run of {AWARE_S:g} s trains two models with the same trees. One has our
  features. The other, the state-aware model, also has each engine's queues, the tokens that it holds and must still
  generate, and the request's TPOT by the engine's own costs if no other request comes. Both are judged on the rest of
  the run. Where the state-aware model is hardly better, no feature is missing."""
RECOVERY = """\
The next table has errors and coverage of slo on the endpoint that drops to half speed, as means over seeds. It has the
last period before the change and all periods after it. After {as_before_s} s, both errors are no larger than in the two
periods before the change, or within bounds, for two periods in a row. If they never are, this is the time to the last
period."""
LATENCY_BOUND = """\
The next table has the end-to-end p50 on shared-prefix at the common load.

- *quickest* is a policy that knows what the oracle knows. It places each request where all answers together are
  predicted to end soonest.
- *lower bound* is the p50 if each request were alone on an idle endpoint that has its prompt in the cache. No policy
  can be faster.

The difference between the two has two causes: requests share steps, and no policy knows which requests will arrive."""
TRIED = f"""\
These changes of the `slo` profile's strategy ([how-it-decides.md](how-it-decides.md)) were tried one at a time. The
workloads were azure-conversation, heterogeneous, heavy-tails and shared-prefix, near the loads at which `default` or
`slo` fails.

### Kept

- Count a placement's effect on the requests that are already there. Without this, strict requests are crowded out.
- Estimate the chance of meeting an objective from the median and an upper quantile. This beats either alone.
- Ask the models for the cost of a prompt on each endpoint. Where lengths differ, this is far better than to multiply
  the tokens ahead by the measured time per token.
- Use the time since an endpoint's last token as a feature. This halves the errors of TTFT, and doesn't change
  attainment.
- Measure the speed of prefill as mean time over mean tokens.
- Track the progress and speed of each answer in flight. Then a request that can no longer miss, or no longer be saved,
  doesn't count. This gains most where objectives differ.
- Measure how much slower than predicted an endpoint is, compared with the others. This gains as much where no endpoint
  changes its speed as where some do.
- Treat an endpoint that emits nothing as stalled.
- For an endpoint that has become slower, predict as if its measured times were shorter, and multiply by a factor from
  its latest responses. Do so once TTFT and TPOT both ask for it. Without this, predictions for the endpoint stay wrong
  for more than a minute.
- Among placements that meet equally many objectives, compare the time that each takes of all requests, and not the
  request's own time. This sends prompts to endpoints that have them cached. It makes answers faster where all requests
  meet their objectives.

- Count a prompt's cached tokens for a placement, the more the longer prompts wait on most endpoints. Without this, long
  prompts leave their caches for emptier endpoints at high load, and the pool reads the same prefixes again and again.

### Kept as an option

- `shed: all`, which is `{SHEDDING}`: shed a request that is expected to make more requests miss their objectives than
  it meets. This gains more than any other change, although a shed request counts as missed. By default no ordinary
  request is shed, as in the gateway's own picker.

### Not kept

- A constant in place of the lowest TPOT predicted for an endpoint.
- A request's share of a step by its tokens, in addition to its share by requests.
- More weight on speed, or less.
- Other spreads and weights, between half and twice the present ones. They change little.
- To scale the predictions themselves by such a bias. Variants: scale TTFT too, scale by all of the bias and not by
  half, or scale only by a bias above 5% or 10%.
- A factor of latencies that TPOT alone asks for. Overloaded endpoints get it as well.
- The number of recent requests as a feature of TPOT.
- To expect TPOT to rise or fall with the number of requests in flight. This gives up requests that could be saved.
- To place a request that nothing can save on the fullest endpoint.
- An endpoint's recent TPOT by single steps. It says more about the endpoint's last prompt than about its speed.
- To shed a request that is unlikely to meet its objectives on any endpoint. There are none at such loads: the best
  chance is hardly ever below a third.
- To place one request in fifty at random, so that models learn about endpoints that are avoided. This costs more than
  it teaches."""
