"""`python -m epp`: the endpoint picker."""

import logging
import os
import sys
from typing import Any

import click

from epp import logs
from epp.config import Config
from epp.environment import UNUSED
from epp.exceptions import ConfigError
from epp.flags import GoCommand
from epp.options import WITHOUT_EFFECT, options
from epp.workers.supervisor import supervise
from serving.command import own_arguments
from serving.exceptions import StartError
from serving.unused_variables import describe_unused
from serving.workers import own_place

logger = logging.getLogger("headroom.epp")

_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.command(cls=GoCommand, context_settings=_SETTINGS)
@options
def main(v: int, zap_encoder: str, zap_log_level: str, **values: Any) -> None:
    """Headroom's endpoint picker: an Envoy ext_proc service that sends each request to the replica with headroom.

    Endpoints come from the InferencePool --pool-name, unless --endpoint-selector, --endpoints or --endpoints-file is
    given. `python -m epp check FILE` checks an EndpointPickerConfig and describes it. A BOOLEAN flag without a value
    means true.
    """
    place = own_place("epp")
    try:
        logs.configure(v, zap_encoder, zap_log_level)
        ignored = {name: values.pop(name) for name in WITHOUT_EFFECT}
        config = Config(**values)
        if place is None or place.is_first:
            _note_without_effect(ignored)
            logger.info("starting with %s", config)
        if config.workers > 1 and place is None:
            supervise(config.workers, own_arguments())
        else:
            # Imported late: the supervisor process doesn't need these modules, which take about 70 MiB.
            from epp.server import serve

            serve(config, place)
    except (ConfigError, StartError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _note_without_effect(flags: dict[str, str]) -> None:
    for name, value in flags.items():
        if value:
            logger.info("--%s has no effect: %s", name.replace("_", "-"), WITHOUT_EFFECT[name])
    for line in describe_unused(UNUSED, os.environ):
        logger.info(line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        from epp.check import check

        check(sys.argv[2:], prog_name="python -m epp check")
    main(prog_name="python -m epp")
