"""``featx demo``: the whole job on images that are on the disk after installing, by the commands a user would type."""

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featx.cli import options
from featx.cli.show import Screen
from featx.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["demo"]

_N_LABELLED = 20  # of each of ten classes
_N_NEW = 30
_SIDE_PIXELS = 64
_ALONE = ["-x", "nano", "-x", "hog:cell=32"]
_FUSED = ["-x", "nano+hog:cell=32"]
_LINEAR_AND_SVM = ["--head", "logreg", "--head", "svm"]
_MLP = ["--head", "mlp", "--pca", "40", "--cv", "2"]  # an MLP costs ten times a linear head, and more


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
    """Extract, compare, fit, save and predict on scikit-learn's handwritten digits; needs no network.

    Example: featx demo
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    digits, new = directory / "digits", directory / "new"
    model, run = directory / "digits.featx", directory / "run"
    vectors = options.cache_directory(cache or directory / "cache")
    commands = [
        ["extract", str(digits), *_ALONE],
        ["compare", str(digits), *_ALONE, *_FUSED, *_LINEAR_AND_SVM, "--cv", "3", "--out", str(run)],
        ["fewshot", str(digits), *_ALONE, "--shots", "1,5", "--labels", "none"],
        ["fit", str(digits), "-x", "nano", *_MLP],
        ["fit", str(digits), *_FUSED, *_MLP, "--out", str(model)],
        ["predict", str(model), str(new), "--out", str(directory / "predictions.csv")],
        ["extract", str(digits), *_ALONE],
    ]
    typed = [shlex.join(["featx", *command, "--cache", str(vectors)]) for command in commands]
    _check_folder(directory, vectors)
    _write_digits(digits, new)
    results = []
    for line in typed[:-1]:
        screen.remark("", f"$ {line}")
        results.append(_run(line, screen))
    screen.remark("", f"$ {typed[-1]}")
    again = _run_as_json(typed[-1])
    listed = "\n".join(f"  {line}" for line in typed)
    screen.result(
        {"commands": typed, "results": [*results, again], "extracted_again": again["extracted"]},
        f"{again['cached']} samples were in the cache, {again['extracted']} were extracted again\n\n"
        f"The report is {run / 'report.html'}. What was run:\n{listed}\n\n"
        "Go on with a folder of your own that has a folder for each class:\n"
        "  featx compare PHOTOS -x nano -x nano+hog --head logreg --head svm --out photos-run\n"
        "  featx fit PHOTOS -x nano --head logreg --out photos.featx\n"
        "  featx predict photos.featx NEW_PHOTOS\n"
        "Where weights can be downloaded, a bigger backbone is better: -x resnet50 instead of -x nano.",
    )


def _run(line: str, screen: Screen) -> dict[str, Any] | None:
    """Run a command as typed; return its JSON object where the demo's own result is JSON."""
    if screen.as_json:
        return _run_as_json(line)
    _call(line, *(["-q"] if screen.quiet else []))
    return None


def _run_as_json(line: str) -> dict[str, Any]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        _call(line, "--json", "-q")
    result: dict[str, Any] = json.loads(output.getvalue())
    return result


def _call(line: str, *arguments: str) -> None:
    from featx.cli.main import app

    app([*shlex.split(line)[1:], *arguments], standalone_mode=False)


def _check_folder(directory: Path, cache: Path) -> None:
    """Refuse a folder with anything in it that a demo does not put there: its samples would be the demo's."""
    own = {"digits", "new", "run", "digits.featx", "predictions.csv", cache.name}
    places = ((directory, own), *((directory / name, set("0123456789")) for name in ("digits", "new")))
    for place, expected in places:
        strange = sorted({path.name for path in place.iterdir()} - expected) if place.is_dir() else []
        if strange:
            raise UsageError(
                f"'{place}' is not of a demo: expected only what one writes, got '{strange[0]}' in it. "
                "Name another folder with --directory."
            )


def _write_digits(digits: Path, new: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    shuffled = np.random.default_rng(0).permutation(
        len(data.target)
    )  # as they come they are grouped by writer
    for label in range(10):
        indices = shuffled[data.target[shuffled] == label]
        _write(digits / str(label), data.images, indices[:_N_LABELLED])
        _write(new / str(label), data.images, indices[_N_LABELLED : _N_LABELLED + _N_NEW])


def _write(folder: Path, images: "NDArray[np.float64]", indices: "NDArray[np.int64]") -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        path = folder / f"{index:04d}.png"
        if path.exists():
            continue
        grey = np.asarray(images[index] * (255 / 16), np.uint8)  # scikit-learn's pixels run from 0 to 16
        image = Image.fromarray(grey).resize((_SIDE_PIXELS, _SIDE_PIXELS), Image.Resampling.BICUBIC)
        temporary = path.with_name(f".{path.name}")  # hidden, so never a sample of its own
        image.save(temporary)
        temporary.replace(path)
