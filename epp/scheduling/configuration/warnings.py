"""Find settings of a configuration that are allowed but probably a mistake."""

from collections.abc import Iterator

from epp.scheduling.plugin import Admitter, Filter, Marker, Picker, ProfileHandler, Scorer
from epp.scheduling.plugins.latency import LatencyScorer
from epp.scheduling.plugins.pickers import MaxScorePicker
from epp.scheduling.plugins.prefix import ApproxPrefixCacheProducer, PrefixCacheScorer
from epp.scheduling.plugins.profiles import SloAwareProfileHandler
from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler


def find_warnings(scheduler: Scheduler) -> Iterator[str]:
    """Yield a sentence for each probable mistake, with its effect and the remedy."""
    if "slo" in scheduler.profiles and not isinstance(scheduler.handler, SloAwareProfileHandler):
        yield "profile slo: no request header selects it without an slo-aware-profile-handler; declare one"
    for profile in scheduler.profiles.values():
        yield from _weights(profile)
        yield from _slo_scorer(profile, scheduler)
    if scheduler.predict is False and any(profile.needs_predictions for profile in scheduler.profiles.values()):
        yield "predictInProduce is false, so plugins that need predictions never get any"
    yield from _unused(scheduler)


def _weights(profile: Profile) -> Iterator[str]:
    if profile.scorers and not any(weighted.weight for weighted in profile.scorers):
        yield f"profile {profile.name}: every weight is 0, so scores decide nothing"
    latency = any(isinstance(weighted.scorer, LatencyScorer) for weighted in profile.scorers)
    if latency and isinstance(profile.picker, MaxScorePicker):
        yield (
            f"profile {profile.name}: max-score-picker sends every request to the endpoint that latency-scorer puts "
            "first until its metrics change; use weighted-random-picker"
        )


def _slo_scorer(profile: Profile, scheduler: Scheduler) -> Iterator[str]:
    own = [weighted for weighted in profile.scorers if isinstance(weighted.scorer, SloScorer)]
    if not own:
        return
    sizers = (PrefixCacheScorer, ApproxPrefixCacheProducer)
    if not any(isinstance(plugin, sizers) for plugin in scheduler.plugins.values()):
        yield (
            f"profile {profile.name}: slo-scorer sends prompts where their prefix is cached, but no plugin sizes the "
            "prefix index; declare prefix-cache-scorer, and refer to it here with weight 0"
        )
    for weighted in profile.scorers:
        if weighted.weight and weighted not in own:
            yield (
                f"profile {profile.name}: slo-scorer draws one endpoint and gives it 1; {weighted.name} with weight "
                f"{weighted.weight:g} can outvote the draw; give it weight 0"
            )


def _unused(scheduler: Scheduler) -> Iterator[str]:
    used = {id(plugin) for profile in scheduler.profiles.values() for plugin in profile.plugins}
    for name, plugin in scheduler.plugins.items():
        idle = isinstance(plugin, (Filter, Scorer, Picker)) and id(plugin) not in used
        if idle and not isinstance(plugin, (Admitter, Marker, ProfileHandler, PrefixCacheScorer)):
            yield f"{name}: declared, but no profile refers to it"
