"""The command ``featx``: its commands, and how every error becomes one line and an exit code."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from featx.cli import cache, compare, demo, doctor, extract, fewshot, fit, list, predict, report
from featx.cli.show import printable, shortened
from featx.cli.typed import TypedGroup
from featx.errors import FeatxError

__all__ = ["app", "main"]

_INTERRUPTED = 130

app = typer.Typer(
    name="featx",
    cls=TypedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("extract")(extract.extract)
app.command("fit")(fit.fit)
app.command("predict")(predict.predict)
app.command("compare")(compare.compare)
app.command("fewshot")(fewshot.fewshot)
app.command("report")(report.report)
app.add_typer(cache.app, name="cache")
app.add_typer(list.app, name="list")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _version(asked: bool) -> None:
    if asked:
        from featx import __version__

        print(f"featx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Frozen pretrained backbones, run once; every vector kept; scikit-learn on top.

    A vector is computed once, is never the wrong one, and is never lost.

    Example: featx fit photos/ -x resnet50 --head logreg --out photos.featx
    """


def main() -> None:
    """Run the command line; exits with 0, 1 (failed work), 2 (wrong use), 130 (Ctrl-C) or 143 (SIGTERM)."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(prog_name="featx", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # Typer's own way of passing Ctrl-C on
            raise KeyboardInterrupt
    except FeatxError as error:
        code = _complain(str(error), error.exit_code)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            code = error.exit_code
        else:
            code = _complain(_reworded(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted; what was computed is kept. Run the same again to go on.", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as with "featx list ... | head"; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MemoryError:
        code = _complain(
            "out of memory; what was computed is kept. Use a smaller --batch-size or fewer --workers.", 1
        )
    except OSError as error:
        place = f" '{error.filename}'" if error.filename else ""
        code = _complain(f"cannot use{place}: {error.strerror or error}. Check the path and its disk.", 1)
    sys.exit(code)


def _reworded(error: typer.TyperException) -> str:
    """Return what Typer and pydantic say of wrong use in the words of our errors, with the help of that command."""
    said = error.format_message().replace("Value error, ", "").partition(", unable to parse")[0].rstrip(".")
    details = getattr(error.__cause__, "errors", None)  # pydantic's
    if details is not None and "Input should be" in said:
        said = said.replace("Input should be", "expected").replace("a valid integer", "a whole number")
        said += f", got {details()[0]['input']!r}"
    context = getattr(error, "ctx", None)
    said += "" if said.endswith("?") else "."
    return f"{said} See: {context.command_path if context else 'featx'} --help"


def _complain(message: str, exit_code: int) -> int:
    line = shortened(" ".join(printable(message).split()))
    print(f"featx: error: {line}", file=sys.stderr)
    return exit_code


def _terminate(number: int, _frame: FrameType | None) -> None:
    # Not print: the signal may have come in the middle of one.
    os.write(sys.stderr.fileno(), b"featx: error: terminated; what was computed is kept\n")
    # Unwinds through the engine, which publishes what it has.
    sys.exit(128 + number)
