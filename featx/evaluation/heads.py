"""Finding a head by its name, by the path of a recipe, or from an estimator; it fits none of them."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from featx.errors import UsageError

__all__ = [
    "Head",
    "ScoreMethod",
    "Task",
    "check_heads",
    "head_names",
    "head_records",
    "load_head",
    "score_method",
]

Task = Literal["classification", "regression"]
ScoreMethod = Literal["predict_proba", "decision_function"]


@dataclass(frozen=True, eq=False)
class Head:
    """An unfitted scikit-learn pipeline and the parameters worth trying on it.

    Attributes
    ----------
    name : str
        What messages and tables call it.
    pipeline : sklearn.base.BaseEstimator
        The unfitted estimator; it is cloned before every fit.
    grid : mapping, or sequence of mappings, of str to list
        Its search space, as :class:`~sklearn.model_selection.GridSearchCV` takes it; may be empty.
    task : {"classification", "regression"}
        What kind of labels it learns.
    recipe : str or None
        ``"built in"``, the SHA-256 of the recipe's file in hex, or None for a head that comes of neither.
    """

    name: str
    pipeline: Any
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]
    task: Task
    recipe: str | None = None

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values, in its order; ``[{}]`` for an empty grid."""
        from sklearn.model_selection import ParameterGrid

        return list(ParameterGrid(self.grid))


def head_names() -> list[str]:
    """Return the names of the shipped heads, sorted, without importing them."""
    pipelines = importlib.import_module("featx.pipelines")
    return sorted(module.name for module in pkgutil.iter_modules(pipelines.__path__))


def check_heads(heads: Sequence[Head]) -> None:
    """Refuse heads that cannot be compared, before any feature is computed for them.

    Raises
    ------
    UsageError
        For none at all, two of one name, or two tasks.
    """
    if not heads:
        raise UsageError("expected at least one head, got none. Name one, as in logreg.")
    names = [head.name for head in heads]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(
            f"two heads are called {twice!r}; name each once, and give recipes of your own different file names."
        )
    if other := next((head for head in heads if head.task != heads[0].task), None):
        raise UsageError(
            f"head {heads[0].name!r} is for {heads[0].task} and {other.name!r} for {other.task}; compare heads of"
            " one kind."
        )


def head_records(heads: Sequence[Head]) -> list[dict[str, str | None]]:
    """Return ``name, recipe`` of heads, as a run's results tell which recipes it used."""
    return [{"name": head.name, "recipe": head.recipe} for head in heads]


def score_method(estimator: Any) -> ScoreMethod | None:
    """Return the method whose class scores belong to an estimator's predictions, probabilities first, or None.

    A nearest centroid has none: it predicts the class whose mean is nearest, while its probabilities and its decision
    function are those of another rule, a discriminant analysis, and favour another class in many rows.

    Examples
    --------
    >>> [score_method(load_head(name).pipeline) for name in ("logreg", "svm", "centroid")]
    ['predict_proba', 'decision_function', None]
    """
    from sklearn.neighbors import NearestCentroid

    last = estimator
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    if isinstance(last, NearestCentroid):
        return None
    methods: tuple[ScoreMethod, ...] = ("predict_proba", "decision_function")
    return next((method for method in methods if hasattr(estimator, method)), None)


def load_head(
    name_or_path: str | os.PathLike[str] | Any,
    *,
    class_weight: Mapping[Any, float] | str | None = None,
    random_state: int | None = 0,
) -> Head:
    """Return the head of that name, of that recipe file, or around that estimator.

    Parameters
    ----------
    name_or_path : str, path-like or estimator
        The name of a shipped recipe (see :func:`head_names`), the path of a Python file that defines
        ``build()`` and ``grid()``, or an unfitted scikit-learn classifier or regressor, which is used as it
        is, without a search. A recipe file is run: name only files that you trust.
    class_weight : mapping, str or None
        Passed to ``build`` when not None.
    random_state : int or None
        Passed to ``build`` where it takes one.

    Returns
    -------
    Head

    Raises
    ------
    UsageError
        When nothing has that name, the file is no recipe, or the head has no class weights.

    Examples
    --------
    >>> head = load_head("logreg", class_weight="balanced")
    >>> head.task, len(head.candidates)
    ('classification', 12)
    >>> from sklearn.linear_model import LinearRegression
    >>> load_head(LinearRegression()).task
    'regression'
    """
    digest: str | None = None
    if isinstance(name_or_path, str | os.PathLike):
        text = os.fspath(name_or_path)
        if text.endswith(".py"):
            name, recipe = Path(text).stem, _module_from_file(Path(text))
            digest = hashlib.sha256(Path(text).read_bytes()).hexdigest()
        else:
            name, recipe, digest = text, _shipped_module(text), "built in"
        pipeline = _build(recipe, text, class_weight=class_weight, random_state=random_state)
        grid = _called(recipe.grid, f"head {text!r}: grid()")
    else:
        pipeline, grid = _unfitted_copy(name_or_path), {}
        last = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else pipeline
        name = type(last).__name__
        if class_weight is not None:
            raise UsageError(f"class_weight cannot be set on a given {name}; set it on the estimator itself.")
    head = Head(name=name, pipeline=pipeline, grid=grid, task=_task_of(pipeline, name), recipe=digest)
    _check_grid(head)
    return head


def _shipped_module(name: str) -> ModuleType:
    names = head_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=2)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"unknown head {name!r}.{hint} Heads: {', '.join(names)}; or the path of a recipe, as in mine.py."
        )
    return importlib.import_module(f"featx.pipelines.{name}")


def _module_from_file(path: Path) -> ModuleType:
    """Run a recipe file; kept out of sys.modules, so that worker processes get its classes by value."""
    if not path.is_file():
        raise UsageError(
            f"head {str(path)!r} is not a file; give the path of a recipe, or the name of a head."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"head {str(path)!r} cannot be run: {type(error).__name__}: {error}") from error
    missing = [f"{name}()" for name in ("build", "grid") if not callable(getattr(module, name, None))]
    if missing:
        raise UsageError(
            f"head {str(path)!r} lacks {' and '.join(missing)}; a recipe defines build(), which returns an"
            " unfitted scikit-learn pipeline, and grid(), which returns its search space (may be {})."
        )
    return module


def _build(recipe: ModuleType, name: str, *, class_weight: Any, random_state: int | None) -> Any:
    parameters = inspect.signature(recipe.build).parameters
    options: dict[str, Any] = {}
    if "random_state" in parameters:
        options["random_state"] = random_state
    if class_weight is not None:
        if "class_weight" not in parameters:
            raise UsageError(
                f"head {name!r} has no class weights; leave class_weight out or take another head."
            )
        options["class_weight"] = class_weight
    built = _called(recipe.build, f"head {name!r}: build()", **options)
    if not _is_estimator(built):
        raise UsageError(
            f"head {name!r}: build() should return an unfitted scikit-learn pipeline, got {type(built).__name__}."
            " Mend the recipe."
        )
    return _unfitted_copy(built)


def _called(function: Callable[..., Any], what: str, **options: Any) -> Any:
    try:
        return function(**options)
    except Exception as error:  # a user's own code, which may raise anything
        raise UsageError(f"{what} fails: {type(error).__name__}: {error}. Mend the recipe.") from error


def _unfitted_copy(estimator: Any) -> Any:
    from sklearn.base import clone

    if not _is_estimator(estimator):
        raise UsageError(
            f"a head is the name of one, the path of a recipe or a scikit-learn estimator; got"
            f" {type(estimator).__name__}."
        )
    return clone(estimator)


def _is_estimator(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("fit", "predict", "get_params"))


def _task_of(pipeline: Any, name: str) -> Task:
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(pipeline):
        return "classification"
    if is_regressor(pipeline):
        return "regression"
    raise UsageError(f"head {name!r} is neither a classifier nor a regressor; its last step must be one.")


def _check_grid(head: Head) -> None:
    try:
        names = {name for candidate in head.candidates for name in candidate}
    except (TypeError, ValueError) as error:
        raise UsageError(f"the grid of head {head.name!r} is not a search space: {error}") from error
    known = head.pipeline.get_params()
    for name in sorted(names - known.keys()):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"the grid of head {head.name!r} names {name!r}, which its pipeline lacks.{hint}")
