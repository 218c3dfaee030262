"""Heads on several extractors' features side by side, fused before the head or after it; nothing is fitted here.

Early fusion is one head on all columns, late fusion one head an extractor and a last one on what these say.
Both are plain scikit-learn, so that a fitted one can be saved and read without running anyone's code.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.errors import UsageError
from featx.evaluation.grid_search import Choice
from featx.evaluation.heads import Head, score_method
from featx.wording import counted

__all__ = [
    "Fusion",
    "check_fusion",
    "component_notes",
    "early",
    "late",
    "part_columns",
    "part_heads",
    "parts_matrix",
    "plain",
]

Fusion = Literal["early", "late"]

Rows = NDArray[np.int64]


def check_fusion(
    head: Head, *, fusion: Fusion = "early", n_parts: int, n_components: int | None = None
) -> None:
    """Refuse what `early` and `late` could not do with this head, before any feature is computed for it.

    Raises
    ------
    UsageError
        For an unknown fusion, a late one of a single part, with class weights by name or of a head without
        class scores, or no component.
    """
    if fusion not in get_args(Fusion):
        raise UsageError(f"unknown fusion {fusion!r}; expected one of {', '.join(get_args(Fusion))}.")
    if n_components is not None and not (_is_whole(n_components) and n_components > 0):
        raise UsageError(
            f"n_components must be a whole number, at least 1, or None for no PCA; got {n_components!r}."
        )
    if fusion == "early":
        return
    if n_parts < 2:
        raise UsageError(
            f"late fusion needs two extractors or more, got {n_parts}; name several, as in resnet50+hog,"
            " or leave late fusion out."
        )
    if head.task == "classification" and score_method(head.pipeline) is None:
        raise UsageError(
            f"late fusion weighs the class scores of its heads, which head {head.name!r} lacks; take a head that has"
            " them (logreg, knn, mlp, ridge, svm), or early fusion."
        )
    for params in [head.pipeline.get_params(), *head.candidates]:
        if any(name.endswith("class_weight") and isinstance(params[name], Mapping) for name in params):
            # Stacking numbers the classes before the parts' heads see them.
            raise UsageError(
                f"late fusion cannot weigh classes by name, as head {head.name!r} does; take class_weight"
                " 'balanced', or early fusion."
            )


def component_notes(names: Sequence[str], widths: Sequence[int], n_components: int | None) -> list[str]:
    """Say which parts are no wider than the components that they were to be reduced to.

    Examples
    --------
    >>> component_notes(["resnet50", "lbp"], [2048, 216], 300)
    ['lbp has 216 features, no more than the 300 components asked for: PCA leaves them as they are']
    """
    return [
        f"{name} has {counted(width, 'feature')}, no more than the {n_components} components asked for: PCA leaves"
        " them as they are"
        for name, width in zip(names, widths, strict=True)
        if n_components is not None and width <= n_components
    ]


def part_columns(widths: Sequence[int]) -> list[slice]:
    """Return the columns of every part of a matrix that holds them side by side.

    Examples
    --------
    >>> part_columns([1280, 48])
    [slice(0, 1280, None), slice(1280, 1328, None)]
    """
    ends = list(itertools.accumulate(widths))
    return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]


def parts_matrix(X: NDArray[Any], widths: Sequence[int], parts: Sequence[int]) -> NDArray[Any]:
    """Return the columns of some parts of a matrix side by side, in the order asked for.

    Parameters
    ----------
    X : array of shape (n_samples, sum of widths)
    widths : sequence of int
        Columns of each part of X.
    parts : sequence of int
        Positions in `widths`.

    Returns
    -------
    array of shape (n_samples, n_features)
        A view where the parts are neighbours, not to be written to.
    """
    blocks = [part_columns(widths)[part] for part in parts]
    if all(before.stop == after.start for before, after in itertools.pairwise(blocks)):
        return X[:, blocks[0].start : blocks[-1].stop]
    return np.hstack([X[:, block] for block in blocks])


def early(
    head: Head, widths: Sequence[int], *, n_components: int | None = None, random_state: int | None = 0
) -> Head:
    """Return a head on all parts' columns, each part reduced by a PCA of its own.

    With `n_components`, each part is standardised and then reduced by PCA, wherever the head is fitted, so
    on the training rows of a fold alone. The components are not whitened: a leading StandardScaler of the
    head, which would do that, is left out where it is a plain one that the grid does not search. A part
    that is no wider than `n_components` is standardised only.

    Without `n_components`, or where no part is wider, it is the head itself: to standardise side by side
    is to standardise each part.

    Parameters
    ----------
    head : Head
    widths : sequence of int
        Columns of each part, in the order of X.
    n_components : int, optional
        Components to keep of every part that has more columns.
    random_state : int or None
        Seed of the PCA, which draws random numbers for large matrices.

    Returns
    -------
    Head
        The names in its grid are those of `head`; around a bare estimator they get its name as a prefix,
        as in a pipeline.

    Examples
    --------
    >>> from featx.evaluation.heads import load_head
    >>> head = early(load_head("logreg"), [1280, 48], n_components=50)
    >>> [name for name, step in head.pipeline.steps], list(head.grid)
    (['parts', 'logisticregression'], ['logisticregression__C'])
    """
    if n_components is None or max(widths) <= n_components:
        return head
    transformers = [
        (
            f"part{number}",
            make_pipeline(StandardScaler(), PCA(n_components, random_state=random_state))
            if width > n_components
            else StandardScaler(),
            columns,
        )
        for number, (width, columns) in enumerate(zip(widths, part_columns(widths), strict=True), start=1)
    ]
    return _with_first_step(head, "parts", ColumnTransformer(transformers), drops_scaler=True)


def part_heads(
    head: Head, widths: Sequence[int], *, n_components: int | None = None, random_state: int | None = 0
) -> list[Head]:
    """Return the head to search on each part's own columns before `late` stacks them."""
    return [early(head, [width], n_components=n_components, random_state=random_state) for width in widths]


def late(
    head: Head,
    widths: Sequence[int],
    choices: Sequence[Choice],
    inner: Sequence[tuple[Rows, Rows]],
    *,
    n_components: int | None = None,
    random_state: int | None = 0,
) -> Head:
    """Return a stack: the head on each part by itself, and a last one that weighs what they say.

    The last one, a logistic regression or a RidgeCV, learns from what the parts' heads say of rows that
    they were not fitted on, by the folds given: a part that knows its training rows by heart gains nothing
    by it [1]_. It sees probabilities, or decision values where a head has none, standardised, and balances
    classes where the parts' heads do. These are then fitted on all rows.

    Parameters
    ----------
    head : Head
    widths : sequence of int
        Columns of each part, in the order of X; two parts or more.
    choices : sequence of Choice
        The parameters of each part's head, chosen with `part_heads`.
    inner : sequence of (train, validation) pairs of int64 arrays
        Positions within the rows that the stack is fitted on. Each of these is in one validation part:
        see :func:`featx.evaluation.fused_search.stacking_folds`.
    n_components, random_state
        As in `part_heads`.

    Returns
    -------
    Head
        Its grid is empty. The parts' parameters are ``part1__...``, ``part2__...``.

    Raises
    ------
    UsageError
        For a single part, class weights by name, or folds that are no partition.

    References
    ----------
    .. [1] Wolpert 1992, "Stacked generalization", Neural Networks 5(2).
    """
    check_fusion(head, fusion="late", n_parts=len(widths), n_components=n_components)
    _check_partition(inner)
    heads = part_heads(head, widths, n_components=n_components, random_state=random_state)
    parts = [
        (f"part{number + 1}", _on_columns(heads[number], choices[number].params, widths, number))
        for number in range(len(widths))
    ]
    stack: BaseEstimator
    if head.task == "classification":
        last = LogisticRegression(max_iter=1000, class_weight=_class_weight(head))
        stack = StackingClassifier(parts, make_pipeline(StandardScaler(), last), cv=list(inner))
    else:
        ridge = RidgeCV(alphas=10.0 ** np.arange(-3, 4))
        stack = StackingRegressor(parts, make_pipeline(StandardScaler(), ridge), cv=list(inner))
    return Head(name=head.name, pipeline=stack, grid={}, task=head.task)


def plain(estimator: Any) -> Any:
    """Return a fitted head without what only its fit needed; its answers are the same.

    The folds of a stack, which are positions in rows that only the fit knew, become their number.
    """
    if isinstance(estimator, StackingClassifier | StackingRegressor) and isinstance(estimator.cv, list):
        estimator.cv = len(estimator.cv)
    return estimator


def _on_columns(head: Head, params: Mapping[str, Any], widths: Sequence[int], number: int) -> Pipeline:
    """Return a part's head as a pipeline on the whole matrix, its parameters set."""
    columns = part_columns(widths)
    selection = ColumnTransformer(
        [
            (f"part{other + 1}", "passthrough" if other == number else "drop", columns[other])
            for other in range(len(widths))
        ]
    )
    chosen = Head(
        head.name, clone(head.pipeline).set_params(**clone(params, safe=False)), grid={}, task=head.task
    )
    return _with_first_step(chosen, "columns", selection).pipeline


def _with_first_step(head: Head, name: str, step: Any, *, drops_scaler: bool = False) -> Head:
    """Return the head with a step before its own, and the grid that still names its parameters."""
    pipeline, grid = clone(head.pipeline), head.grid
    if not isinstance(pipeline, Pipeline):
        pipeline = make_pipeline(pipeline)
        prefix = f"{pipeline.steps[0][0]}__"
        grids = [head.grid] if isinstance(head.grid, Mapping) else list(head.grid)
        grid = [{f"{prefix}{key}": values for key, values in one.items()} for one in grids]
    steps = list(pipeline.steps)
    if drops_scaler and len(steps) > 1 and _is_plain_scaler(steps[0][1]):
        searched = {key.partition("__")[0] for candidate in head.candidates for key in candidate}
        if steps[0][0] not in searched:
            del steps[0]
    while name in dict(steps):
        name += "_"
    return Head(head.name, pipeline.set_params(steps=[(name, step), *steps]), grid, head.task)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_plain_scaler(step: Any) -> bool:
    return type(step) is StandardScaler and step.get_params() == StandardScaler().get_params()


def _class_weight(head: Head) -> str | None:
    """Return the weights that the last head of a stack takes over from its parts' heads."""
    last = head.pipeline.steps[-1][1] if isinstance(head.pipeline, Pipeline) else head.pipeline
    weight: str | None = last.get_params().get("class_weight")
    return weight


def _check_partition(inner: Sequence[tuple[Rows, Rows]]) -> None:
    validation = np.sort(np.concatenate([rows for _, rows in inner]))
    whole = np.array_equal(validation, np.arange(len(validation)))
    if not whole or any(
        np.isin(train, rows).any() or not np.isin(train, validation).all() for train, rows in inner
    ):
        raise UsageError(
            "late fusion needs folds that test each row it is fitted on once, by its position among them;"
            " got others. Take them from stacking_folds."
        )
