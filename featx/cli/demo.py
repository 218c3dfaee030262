"""``featx demo``: the whole job on images that are on the disk after installing, by the commands a user would type."""

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from featx.cli import options
from featx.cli.show import Screen

__all__ = ["demo"]

_N_TRAINING = 400
_N_NEW = 100
_SIDE_PIXELS = 64


def demo(
    directory: Annotated[
        Path, typer.Option("--directory", metavar="DIR", help="Where images, cache and model are put.")
    ] = Path("featx-demo"),
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where the demo's vectors are kept. Default: cache in its own directory.",
            rich_help_panel=options.COMMON,
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Extract, cross-validate, fit, save and predict on scikit-learn's handwritten digits; needs no network.

    Example: featx demo
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    digits, new = directory / "digits", directory / "new"
    model = directory / "digits.featx"
    vectors = options.cache_directory(cache or directory / "cache")
    commands = [
        ["extract", str(digits), "-x", "hog", "-x", "pixels"],
        ["fit", str(digits), "-x", "hog", "--head", "logreg", "--cv", "3"],
        ["fit", str(digits), "-x", "pixels", "--head", "svm", "--cv", "3"],
        ["fit", str(digits), "-x", "hog+pixels", "--head", "logreg", "--cv", "3", "--out", str(model)],
        ["predict", str(model), str(new), "--out", str(directory / "predictions.csv")],
        ["extract", str(digits), "-x", "hog", "-x", "pixels"],
    ]
    typed = [shlex.join(["featx", *command, "--cache", str(vectors)]) for command in commands]
    _write_digits(digits, new)
    results = []
    for line in typed:
        screen.remark("", f"$ {line}")
        results.append(_run(line, screen))
    extracted_again = results[-1]["extracted"] if as_json else None
    screen.result(
        {"commands": typed, "results": results, "extracted_again": extracted_again},
        "\nThe second extraction computed nothing: every vector was in the cache. "
        "Go on with a folder of your own:\n"
        "  featx fit PHOTOS -x mobilenet_v2 --head logreg --out photos.featx\n"
        "  featx predict photos.featx NEW_PHOTOS",
    )


def _run(line: str, screen: Screen) -> Any:
    """Run a command as typed; its JSON object where the demo's own result is JSON."""
    from featx.cli.main import app

    arguments = shlex.split(line)[1:]
    if not screen.as_json:
        app([*arguments, *(["-q"] if screen.quiet else [])], standalone_mode=False)
        return None
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        app([*arguments, "--json", "-q"], standalone_mode=False)
    return json.loads(output.getvalue())


def _write_digits(digits: Path, new: Path) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for index in range(_N_TRAINING + _N_NEW):
        folder = (digits if index < _N_TRAINING else new) / str(data.target[index])
        path = folder / f"{index:04d}.png"
        if path.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(data.images[index] * (255 / 16), np.uint8)  # scikit-learn's pixels run from 0 to 16
        image = Image.fromarray(grey).resize((_SIDE_PIXELS, _SIDE_PIXELS), Image.Resampling.BICUBIC)
        temporary = path.with_name(f".{path.name}")  # hidden, so never a sample of its own
        image.save(temporary)
        temporary.replace(path)
