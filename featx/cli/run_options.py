"""The options of every command that may extract, written once and given to a command as one `Settings`."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

__all__ = ["Device", "Precision", "takes_settings"]

_PANEL = "How the run goes about its work"

Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, mps, cuda, cuda:N, or several as cuda:0,cuda:1, a process each.",
        rich_help_panel=_PANEL,
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(
        "--precision",
        help="Number format of the forward pass. auto: float16 on CUDA, bfloat16 on a CPU with AMX, else float32; "
        "a saved model keeps its own.",
        rich_help_panel=_PANEL,
    ),
]


def _options(
    *,
    device: Device = "auto",
    runtime: Annotated[
        Literal["auto", "torch", "compile", "openvino"],
        typer.Option(
            "--runtime",
            help="What runs backbones. auto: OpenVINO for many images on a CPU, where it is installed; else torch.",
            rich_help_panel=_PANEL,
        ),
    ] = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="Images in a batch. Default: 32, on CUDA 128. OpenVINO computes it in parts.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Threads that read and decode, for each device. Default: one per core in all.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    on_error: Annotated[
        Literal["raise", "record"],
        typer.Option(
            "--on-error",
            help="record: leave samples that fail out and say why; raise: stop at the first.",
            rich_help_panel=_PANEL,
        ),
    ] = "record",
    max_error_rate: Annotated[
        float,
        typer.Option(
            "--max-error-rate",
            help="Exit 1 where a larger share failed: of 100 samples or more, or all of fewer. 0 for any, 1 for never.",
            rich_help_panel=_PANEL,
        ),
    ] = 0.01,
    stall_seconds: Annotated[
        float,
        typer.Option(
            "--stall-seconds",
            help="End the run where reading a sample, a forward pass, or writing a shard takes longer.",
            rich_help_panel=_PANEL,
        ),
    ] = 300.0,
) -> None:
    """Hold the options; `takes_settings` reads them off."""


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the run's options in place of its keyword-only parameter ``settings``, which gets their values.

    Typer reads options off a function's signature, so the command is handed on with a signature that has them.
    """
    options = inspect.signature(_options).parameters
    own = inspect.signature(command).parameters
    parameters: list[inspect.Parameter] = []
    for parameter in own.values():
        named = options.values() if parameter.name == "settings" else [parameter]
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in named]

    @functools.wraps(command)
    def with_settings(**values: Any) -> None:
        from featx.engine import Settings

        settings = Settings(**{name: values.pop(name) for name in options})
        command(**values, settings=settings)

    with_settings.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_settings.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_settings
