"""The command line as it was typed, for what is to be run again."""

import shlex

import typer
from typer.core import TyperGroup

__all__ = ["TypedGroup", "typed_command"]

_KEY = "featx.typed"


class TypedGroup(TyperGroup):
    """A group of commands that remembers what was typed, whoever calls it."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Keep a copy of the arguments, which parsing uses up."""
        ctx.meta[_KEY] = list(args)
        return super().parse_args(ctx, args)


def typed_command(context: typer.Context) -> str:
    """Return the command line that led to this context, quoted for a shell."""
    return shlex.join(["featx", *context.meta[_KEY]])
