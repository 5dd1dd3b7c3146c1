"""`python -m epp check FILE`: checks a file of the picker's configuration and describes it as the picker reads it."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import msgspec

from epp.exceptions import ConfigError
from epp.request.default_objectives import read_default_objectives
from epp.scheduling.configuration.config import load_scheduler
from epp.scheduling.configuration.document import DocumentError, read_document
from epp.scheduling.configuration.warnings import find_warnings
from epp.scheduling.plugin import Admitter, Plugin
from epp.scheduling.plugins.slo import SloAdmitter
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file")
def check(file: str) -> None:
    """Read FILE as the picker does, and describe it. FILE - is standard input.

    It is an EndpointPickerConfig, or a file of default objectives. Exit with 1, and name file, line and path, when the
    picker would refuse it. Environment variables that set parameters count too.
    """
    name = "<stdin>" if file == "-" else file
    try:
        text = _read(file)
        found = read_default_objectives(text) if _has_objectives(text) else load_scheduler(text, os.environ)
    except DocumentError as error:
        raise SystemExit(_fail(f"{name}:{error.line or 1}: {error.path}: {error.problem}")) from None
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise SystemExit(_fail(f"{name}: {_error_text(error)}")) from None
    if not isinstance(found, Scheduler):
        for rule in found:
            click.echo(str(rule))
        return
    for line in describe(found, os.environ):
        click.echo(line)
    for notice in found.notices:
        click.echo(f"notice: {notice}")
    for warning in find_warnings(found):
        click.echo(f"warning: {warning}", err=True)


def _has_objectives(text: str) -> bool:
    given = read_document(text).value
    return isinstance(given, dict) and "objectives" in given


def describe(scheduler: Scheduler, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield lines of text that describe the scheduler."""
    names = {id(plugin): name for name, plugin in scheduler.plugins.items()}
    yield f"profile handler: {_plugin_text(scheduler.handler, names)}"
    for profile in scheduler.profiles.values():
        yield from _profile(profile, names)
    yield f"admission: {', '.join(_plugin_text(_declared_plugin(admitter), names) for admitter in scheduler.admitters)}"
    size = scheduler.prefix
    yield (
        f"prefix index: blocks of {size.hash_block_size} bytes, {size.max_prefix_blocks_to_match} of a prompt looked "
        f"at, {size.lru_capacity_per_server} kept for each endpoint{' of unknown size' if size.auto_tune else ''}"
    )
    yield f"predictions: {_predictions(scheduler)}"
    read = sorted(name for name in _variables(scheduler) if environ.get(name, "").strip())
    if read:
        yield f"environment: {', '.join(f'{name}={environ[name]}' for name in read)}"


def _declared_plugin(admitter: Admitter) -> Plugin:
    """Return the plugin that the configuration declares. A scorer may have made `admitter`."""
    return admitter.scorer if isinstance(admitter, SloAdmitter) else admitter


def _profile(profile: Profile, names: Mapping[int, str]) -> Iterator[str]:
    yield f"profile {profile.name}:"
    for candidate_filter in profile.filters:
        yield f"  filter {_plugin_text(candidate_filter, names)}"
    for weighted in profile.scorers:
        yield f"  scorer {_plugin_text(weighted.scorer, names)}, weight {weighted.weight:g}"
    yield f"  picker {_plugin_text(profile.picker, names)}"


def _predictions(scheduler: Scheduler) -> str:
    if scheduler.predict is not None:
        return "for every request" if scheduler.predict else "never"
    needing = sorted(scheduler.predicted_profiles)
    if not needing:
        return "not needed"
    return f"needed by profile {', '.join(needing)}; start with --enable-latency-predictor"


def _plugin_text(plugin: Plugin, names: Mapping[int, str]) -> str:
    """Return the plugin's type and its non-default parameters, after its name where that differs from the type."""
    name = names.get(id(plugin), "")
    fields = msgspec.structs.fields(plugin)
    changed = {f.encode_name: getattr(plugin, f.name) for f in fields if getattr(plugin, f.name) != f.default}
    parameters = msgspec.json.encode(changed).decode() if changed else ""
    shown = f"{name} ({plugin.type_name})" if name not in ("", plugin.type_name) else plugin.type_name
    return f"{shown} {parameters}".rstrip()


def _variables(scheduler: Scheduler) -> set[str]:
    plugins = (*scheduler.plugins.values(), *scheduler.admitters)
    return {variable for plugin in plugins for variable in plugin.environment}


def _read(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")


def _error_text(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _fail(message: str) -> int:
    click.echo(message, err=True)
    return 1
