"""`headroom completion`: a shell's script that completes commands and flags."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "fish", "zsh")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes headroom's commands and flags.

    For bash: `eval "$(headroom completion bash)"` in ~/.bashrc. For zsh, the same with zsh in ~/.zshrc. For fish:
    `headroom completion fish > ~/.config/fish/completions/headroom.fish`.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 (click knows these shells)
    click.echo(found(ctx.find_root().command, {}, "headroom", "_HEADROOM_COMPLETE").source())
