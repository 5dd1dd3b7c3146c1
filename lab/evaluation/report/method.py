"""How the evaluation measures, as its report tells it."""

from collections.abc import Sequence

from lab.evaluation.plan import BASE, IF_NEVER, INFORMED, ORACLE, OURS, SHEDDING, SHEDDING_ORACLE
from lab.evaluation.policies.picker import (
    EVERY_TOKENS,
    OBSERVED_RESPONSES_PER_S,
    OBSERVED_TOKENS_PER_S,
    TOKEN_DELAY_MS,
    TOKEN_DELAY_SIGMA,
)
from lab.evaluation.replay.misses import LEAST
from lab.evaluation.replay.preparing import LEARNING_REQUESTS, LEARNING_S, LOADS, TUNING_LOADS, TUNING_S
from lab.evaluation.replay.replay import LEARNING, SCRAPE_S, WARM_UP_SHARE
from lab.evaluation.report.statistics import CONFIDENCE
from lab.evaluation.studies.futures import FUTURES, LAST, PASTS
from lab.evaluation.studies.rows import LOAD as ROWS_LOAD
from lab.evaluation.studies.state_aware import SECONDS as TOLD_S


def _listed(numbers: Sequence[float]) -> str:
    *most, last = (f"{number:g}" for number in numbers)
    return f"{', '.join(most)} and {last}" if most else last


METHOD = f"""\
Requests are replayed in virtual time: a discrete-event simulation of a pool of vLLM engines, in which a policy places
every request as it arrives. All policies meet the same requests at the same rate and seed; another rate has the same
requests with other gaps.

- **SLO attainment** is the share of the judged requests, those after the warm-up, that met both their TTFT and their
  TPOT objective. What a policy sheds has met neither.
- **Goodput at 90% (99%)** is the largest rate at which at least that share of the requests meets its objectives.
  Rates lie on a geometric grid; the search strides until one rate attains the share and a higher one doesn't, bisects
  to neighbouring rates, and interpolates between the two. It begins where `{BASE}`, and from the second seed on the
  same policy, was found with the first seed. `≥` and `≤` mark ends of the grid.
- **Runs are cut** in the search, and nowhere else, as soon as fewer than {LEAST:.0%} of the judged requests can still
  meet their objectives: those that wait for longer than their TTFT objective have missed it. Below that no attainment
  is told from another: the search takes each for {LEAST:.0%}, and pictures end there.
- **The common load** of a workload is the rate at which `{BASE}` attains 90%: the geometric mean over seeds, on the
  grid. Where it attains that at no rate, since one of the endpoints is too slow for some whatever the load, it is
  {IF_NEVER:g} of the typical rate, and ratios over `{BASE}` are of bounds: they could be as large as one likes.
- **Intervals**, in brackets, are Student's t over seeds at {CONFIDENCE:.0%}; of goodputs and ratios by their
  logarithms. Ratios are paired by seed. A median over workloads is taken for each seed by itself: its interval tells
  how other draws of requests would change it, not what other workloads would give.
- **Verdicts**: met and missed where the whole interval lies inside or outside the wanted range, unsure where it
  doesn't.
- **One preparation for all seeds**: models and tuned weights that runs start from are made once a workload, from other
  traffic than any that is judged. Intervals over seeds tell of other requests, and not of other training.
- **Fairness** is Jain's index of output tokens over endpoints, each divided by its capacity: 1 is even.
- **Errors** of predictions are median absolute percentage errors over requests that the model had not seen, and that
  ended before the last one came: a pool to which nobody is sent any more is quicker than any that a model has seen.
  Coverage is the share of latencies below their predicted 0.9-quantile. **Recovery** counts from the change to the end
  of the first period from which on both median errors, as means over seeds, are within bounds twice in a row; it looks
  at requests on the endpoint that changed alone, without those that were under way at the change.
- **The cost of a decision** is wall time on this machine, and depends on it; nothing else does."""

OBJECTIVES = """\
Objectives are multiples of a request's unloaded latencies: alone on an idle endpoint of the pool's fastest hardware,
with nothing cached. A prompt counts as at least as long as the workload's median prompt."""
ASSUMPTIONS = f"""\
- Engines are vLLM's in what decides latencies: continuous batching, chunked prefill under a budget of tokens, paged KV
  with preemption, prefix caching, queues ([simulator.md](simulator.md)). What a step costs comes from published kernel
  times, composed into steps; the files in `simulator/calibration` say how, and what was assumed. Hardware is quiet: two
  equal steps take equally long.
- Policies that read metrics read them every {SCRAPE_S * 1000:g} ms, all endpoints at once, and see them as stale as
  that leaves them.
- A decision takes no virtual time, and neither does the network.
- Lengths of prompts are known exactly to every policy that asks for them, and so are the hashes of their pieces.
  Lengths of outputs are unknown to every policy but the oracles, which also know every engine's state and costs.
  `informed` knows these as well, but no lengths: of each answer it expects the mean of those of the workload, in other
  traffic, that are longer than it is so far. What it lacks of `oracle` is knowledge that no router can have.
- Learning takes what it takes in production: models are refitted every {LEARNING.interval_s:g} s, if at least
  {LEARNING.min_new_rows:,} rows are new, and serve {LEARNING.delay_s:g} s later, for a fit and its way to a predictor.
  A training server waits for less: what is learnt here is rather older than there.
- The picker observes responses within its default budget, {OBSERVED_RESPONSES_PER_S:g} responses and
  {OBSERVED_TOKENS_PER_S:,.0f} tokens a second, and looks at each every {EVERY_TOKENS} tokens.
- When an observed response is being generated on an endpoint, the picker has seen the end of its last step: a token
  comes {TOKEN_DELAY_MS:g} ms later in the middle, lognormal with a sigma of {TOKEN_DELAY_SIGMA:g}.
- The first {WARM_UP_SHARE:.0%} of each run's time fills the pool, and isn't judged. Warm models and tuned weights come
  from other traffic, {LEARNING_S:g} s and at least {LEARNING_REQUESTS:,} requests each at {_listed(LOADS)} times, and
  {TUNING_S:g} s each at {_listed(TUNING_LOADS)} times the typical rate ([workloads.md](workloads.md) has the
  workloads)."""
QUALITY = f"""\
Rows of a run of their own, at {ROWS_LOAD:g} of the typical rate and placed by the slo profile; models are fitted to
the first part of them and judged on the rest. Errors and coverage are in percent, losses of the logarithm, and the
bias is the median of log(observed / median predicted). The floor is what neighbours among the rows differ by: an upper
bound of the noise that no model of these features could predict."""
BOUNDS = f"""\
How much of the goodput targets there is to gain, as medians over workloads: `{ORACLE}` knows each engine's state and
costs and how long every answer will be; `{INFORMED}` knows the same but for the lengths, which nobody can. Both serve
all, as `{OURS}` does: what they leave of a target no prediction can bring to such a policy. `{SHEDDING}` is `{OURS}`
told to shed what costs more requests their objectives than it meets, and `{SHEDDING_ORACLE}` the oracle that does."""
TPOT_BOUNDS = f"""\
Errors of predicted TPOT at the common load, in percent. A replay is deterministic: with the same requests up to a
moment, the pool is the same at that moment to the last token. {PASTS} such moments are each followed by {FUTURES}
futures: requests of other seeds, and other lengths of the answers under way, each drawn from those that are longer than
what there is of it. What the TPOTs of the last {LAST} requests before then differ by no router could know, were it told
all of the present. And what the present could tell: of a run of {TOLD_S:g} s the first part teaches two models of the
same trees, ours, and one that is told each engine's queues, the tokens that it holds and has to make, and what the
request's TPOT will be if no other comes, by the engine's own costs. Both are judged on the rest. Where the second is
hardly better, no feature is missing."""
RECOVERY = """\
Errors and coverage of slo, in percent, on the endpoint that halves its speed, in the last period before and those after
it, as means over seeds. Both means are again as they were in the two periods before, or within bounds, for two periods
in a row, {as_before_s} s after the change."""
TRIED = f"""\
The `slo` profile's strategy ([plugins.md](plugins.md)) is what was left of the following, tried one at a time over
azure-conversation, heterogeneous, heavy-tails and shared-prefix near the loads where `default` fails, or `slo` does.

- Kept: counting what a placement does to the requests that are there, without which strict ones are crowded out;
  the chance of meeting an objective from the median and an upper quantile, which beats either alone; asking the models
  what a prompt costs on each endpoint, which beats the measured time over the tokens ahead by far where lengths
  differ; the time since an endpoint's last token as a feature, which halves the errors of TTFT and leaves attainment
  as it is; the speed of prefill as mean time over mean tokens; how far each answer in flight has come and how fast, so
  that what can no longer be missed, or no longer be saved, doesn't count, which gains most where objectives differ; by
  how much an endpoint is slower than predicted, beside the others, which gains as much where none of them changes as
  where some do; taking an endpoint that emits nothing for one that stands still; predicting for an endpoint that has
  become slower as for one whose times are shorter, times a factor that its latest responses tell, once TTFT and TPOT
  both ask for it, without which predictions there stay wrong for more than a minute; between placements that meet as
  many objectives, the time that one takes of all, in place of what the request takes itself, which sends prompts where
  they are cached, and makes answers quicker where all meet their objectives.
- Kept, for those who ask for it (`shed: all`): shedding whatever is expected to make more requests miss their
  objectives than it meets itself, which gains more than anything else, though what is shed counts as missed. That is
  `{SHEDDING}`. No ordinary request is shed by default, as the gateway's own picker sheds none.
- Not kept: a constant in place of the least TPOT that was predicted of an endpoint; a request's share of a step by its
  tokens, beside that by requests; more weight on speed, or less; other spreads and weights, between half and twice
  those that there are, which change little; scaling predictions themselves by such a bias, or TTFT too, or all of it
  in place of half, or only a bias beyond a twentieth or a tenth; a factor of latencies that TPOT alone asks for, which
  overloaded endpoints get as well; how many requests have lately come, as a feature of
  TPOT; expecting TPOT to rise or fall as the number of requests in flight does, which gives up those that could be
  saved; placing whom nothing can save on the fullest endpoint; an endpoint's recent TPOT by single steps, which says
  more of its last prompt than of its speed; shedding what is unlikely to meet its objectives wherever it goes, of which
  there is none at such loads: the best chance is hardly ever below a third; placing one request in fifty at random, so
  that models learn of endpoints that are avoided, which costs more than it teaches."""
