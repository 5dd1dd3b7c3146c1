"""A server's command, which can start further processes with the arguments that it got."""

import click

_ARGUMENTS = "headroom.arguments"


class ServerCommand(click.Command):
    """A command that keeps its arguments for `own_arguments`, whatever program it is a part of."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def own_arguments() -> list[str]:
    """Return the arguments of the server's command that runs now."""
    return list(click.get_current_context().meta[_ARGUMENTS])
