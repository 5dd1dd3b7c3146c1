"""Make the shipped calibrations from published measurements, measure servers, and check what operators measured."""

from pathlib import Path
from statistics import median

import click

from lab.bench.figures import report, steps, write
from lab.calibration.composition import calibration, dense, whole_prompts
from lab.calibration.errors import decode_steps, figures_of
from lab.calibration.kernels import PACKAGE, read_kernels
from lab.calibration.pairs import PAIRS, Pair
from lab.calibration.served import imitate, read_served
from lab.calibration.server.command import calibrate
from simulator.calibration_file import PARTS, format_calibration
from simulator.exceptions import CalibrationError
from simulator.hardware import hardware, measured_hardware, read_calibration

_FOLDER = Path(__file__).parents[2] / "simulator" / "calibration"
_CONTEXTS = (1_024, 8_192)
_SERVED = "2xh100-qwen3-32b"
_PACKAGES = click.option(
    "--packages",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder into which {PACKAGE} and pyarrow were installed by pip install --no-deps --target.",
)
_JSON = click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)


class _Group(click.Group):
    """A group in which a URL in place of a command means `server URL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith(("http://", "https://")):
            args = ["server", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make and check calibrations: tables of an engine's step times, for `python -m simulator --hardware`.

    `calibrate.py http://HOST:PORT` measures a running server, as `headroom calibrate` does.
    """


main.add_command(calibrate, "server")


@main.command()
@_PACKAGES
@click.option(
    "--only", multiple=True, type=click.Choice([pair.name for pair in PAIRS]), help="Make only this table; repeatable."
)
@click.option("--out", default=_FOLDER, type=click.Path(file_okay=False, path_type=Path), help="Folder for the tables.")
@click.option("--host-ms", default=2.0, type=click.FloatRange(0), help="A step's time on the host.")
@click.option(
    "--kernel-factor",
    default=1.2,
    type=click.FloatRange(0.01),
    help="Time of all kernels of a step, as a multiple of the kernels in the tables.",
)
@_JSON
def make(
    packages: Path, only: tuple[str, ...], out: Path, host_ms: float, kernel_factor: float, json_file: Path | None
) -> None:
    """Compose the tables, and print their interpolation errors."""
    figures: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)
    for pair in steps([pair for pair in PAIRS if not only or pair.name in only], "composing"):
        text, found = _compose_table(packages, pair, host_ms, kernel_factor)
        (out / f"{pair.name}.csv").write_text(text)
        figures |= {f"{pair.name} {name}": value for name, value in found.items()}
    _report(figures, json_file, {"package": PACKAGE, "host_ms": host_ms, "kernel_factor": kernel_factor})


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_JSON
def check(file: Path, json_file: Path | None) -> None:
    """Read a calibration as the simulator does, and print its interpolation errors.

    For each part, print the error of left-out rows, in percent of the row and of a step. Also print the largest change
    of a row by making the table monotone, so that more work never takes less time.
    """
    try:
        read = read_calibration(file)
        measured_hardware(file.stem, read)
    except CalibrationError as error:
        raise click.ClickException(str(error)) from error
    figures = figures_of(read, {part: getattr(read, part) for part in PARTS})
    for context in _CONTEXTS:
        figures |= decode_steps(read, context)
    _report(figures, json_file, {"file": file.name})


@main.command()
@_PACKAGES
@_JSON
def compare(packages: Path, json_file: Path | None) -> None:
    """Print ratios of simulated to measured TPOT and TTFT, under the same load.

    The measurements are of vLLM with Qwen3-32B on two H100. They don't say how their clients began. The simulated
    clients all begin at once, and most of their TTFT comes from that.
    """
    imitated = hardware(_SERVED)
    ratios: dict[str, list[float]] = {"tpot": [], "ttft": []}
    for case in steps(read_served(packages, "h100_sxm", "Qwen/Qwen3-32B", 2), "replaying"):
        ours = imitate(imitated, case)
        ratios["tpot"].append(ours.tpot_ms / case.tpot_ms)
        ratios["ttft"].append(ours.ttft_ms / case.ttft_ms)
    figures: dict[str, float] = {"cases": len(ratios["tpot"])}
    for name, ratio in ratios.items():
        figures |= {
            f"{name}_ratio_min": min(ratio),
            f"{name}_ratio_median": median(ratio),
            f"{name}_ratio_max": max(ratio),
        }
    _report(figures, json_file, {"package": PACKAGE, "hardware": _SERVED})


def _compose_table(packages: Path, pair: Pair, host_ms: float, kernel_factor: float) -> tuple[str, dict[str, float]]:
    """Return a table's text, and its error figures."""
    kernels = read_kernels(packages, pair)
    source = f"composed of kernels measured by {PACKAGE}: {pair.accelerator.system}, vLLM {pair.accelerator.version}"
    table = calibration(kernels, pair, source=source, host_ms=host_ms, kernel_factor=kernel_factor)
    layers = pair.model.layers
    measurements = {
        "dense": dense(kernels, pair),
        "prefill_attention": whole_prompts(kernels, pair),
        "decode_attention": {at: layers * ms for at, ms in kernels.decode.items()},
    }
    figures = figures_of(table, measurements)
    for context in _CONTEXTS:
        figures |= decode_steps(table, context)
    return format_calibration(table), figures


def _report(figures: dict[str, float], json_file: Path | None, settings: dict[str, str | float]) -> None:
    report(figures)
    if json_file:
        write(json_file, figures, ("numpy",), settings)


if __name__ == "__main__":
    main()
