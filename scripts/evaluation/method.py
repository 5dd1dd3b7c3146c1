"""How the evaluation measures, as its report tells it."""

from scripts.evaluation.plan import BASE
from scripts.evaluation.statistics import CONFIDENCE

METHOD = f"""\
Requests are replayed in virtual time: a discrete-event simulation of a pool of vLLM engines, in which a policy places
every request as it arrives. All policies meet the same requests at the same rate and seed; another rate has the same
requests with other gaps.

- **SLO attainment** is the share of the judged requests, those after the warm-up, that met both their TTFT and their
  TPOT objective. What a policy sheds has met neither.
- **Goodput at 90% (99%)** is the largest rate at which at least that share of the requests meets its objectives.
  Rates lie on a geometric grid; the search strides until one rate attains the share and a higher one doesn't, bisects
  to neighbouring rates, and interpolates between the two. `≥` and `≤` mark ends of the grid.
- **The common load** of a workload is the rate at which `{BASE}` attains 90%: the geometric mean over seeds, on the
  grid.
- **Intervals**, in brackets, are Student's t over seeds at {CONFIDENCE:.0%}; of goodputs and ratios by their
  logarithms. Ratios are paired by seed. A median over workloads is taken for each seed by itself: its interval tells
  how other draws of requests would change it, not what other workloads would give.
- **Verdicts**: met and missed where the whole interval lies inside or outside the wanted range, unsure where it
  doesn't.
- **Fairness** is Jain's index of output tokens over endpoints, each divided by its capacity: 1 is even.
- **Errors** of predictions are median absolute percentage errors over requests that the model had not seen; coverage
  is the share of latencies below their predicted 0.9-quantile. **Recovery** counts from the change to the end of the
  first period from which on both median errors are within bounds twice in a row.
- **The cost of a decision** is wall time on this machine, and depends on it; nothing else does."""

OBJECTIVES = """\
Objectives are multiples of a request's unloaded latencies: alone on an idle endpoint of the pool's fastest hardware,
with nothing cached. A prompt counts as at least as long as the workload's median prompt."""
ASSUMPTIONS = """\
- Engines are vLLM's in what decides latencies: continuous batching, chunked prefill under a budget of tokens, paged KV
  with preemption, prefix caching, queues ([simulator.md](simulator.md)). What a step costs comes from published kernel
  times, composed into steps; the files in `simulator/calibration` say how, and what was assumed. Hardware is quiet: two
  equal steps take equally long.
- Policies that read metrics read them at an interval, and see them as stale as that leaves them.
- A decision takes no virtual time, and neither does the network.
- Lengths of outputs are unknown to every policy but `oracle`.
- Learning takes what it takes in production: models are refitted at an interval, and serve only after the time that a
  fit and its way to the predictor need.
- The first part of each run fills the pool, and isn't judged. Warm models and tuned weights come from other traffic of
  the same workload than that which is judged ([workloads.md](workloads.md) has the workloads)."""
