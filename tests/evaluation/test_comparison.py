import hashlib
import itertools

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.evaluation.comparison import check_comparison, compare_heads
from featx.evaluation.cross_validation import cross_validate
from featx.evaluation.heads import Head, load_head
from featx.evaluation.seeds import repeat_seed

ONE = {"extractors": {"x": [0]}}


@pytest.fixture(autouse=True)
def one_blas_thread():
    with threadpool_limits(limits=1):
        yield


def nearest():
    return load_head(make_pipeline(StandardScaler(), KNeighborsClassifier(1)))


def small_ridge():
    head = load_head("ridge")
    return Head("ridge", head.pipeline, {"ridgeclassifier__alpha": [1e3, 1.0]}, "classification")


def compared(X, y, *heads, **options):
    options = {**ONE, "widths": [X.shape[1]], **options}
    return compare_heads(X, y, list(heads), **options)


def accuracies(found):
    """Return the accuracy in every fold by extractor and head."""
    return {
        (one.entry.extractor, one.entry.head): one.entry.metrics["accuracy"].folds
        for one in found.ranking.standings
    }


SEEN = []


class Spy(ClassifierMixin, BaseEstimator):
    """Answers the first class; writes down the rows it is fitted and asked on, known by their first column."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        SEEN.append(("fit", frozenset(X[:, 0])))
        return self

    def predict(self, X):
        SEEN.append(("predict", frozenset(X[:, 0])))
        return np.full(len(X), self.classes_[0])


class ScoringSpy(Spy):
    """Has the class scores that a stack needs too."""

    def predict_proba(self, X):
        SEEN.append(("predict", frozenset(X[:, 0])))
        return np.tile(np.arange(len(self.classes_)) == 0, (len(X), 1)).astype(float)


class Guess(ClassifierMixin, BaseEstimator):
    """Answers at random, but a row and a seed always alike: a grid of seeds is a search among coin tossers."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[
            [hashlib.blake2b(row.tobytes(), key=bytes([self.seed])).digest()[0] % 2 for row in X]
        ]


def three_parts(n=90):
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:n], np.array(["a", "b", "c"])[y[:n]], [16, 24, 24]


@pytest.mark.parametrize(("fusion", "n_components"), [("early", 5), ("early", None), ("late", 5)])
def test_every_contender_scores_what_it_scores_when_cross_validated_alone(fusion, n_components):
    X, y, widths = three_parts(60)
    extractors = {"a": [0], "b": [1], "c+a": [2, 0]}
    heads = [small_ridge(), load_head("centroid")][: 2 if n_components is None else 1]
    shared = {"cv": 3, "n_components": n_components}
    found = compare_heads(
        X, y, heads, extractors=extractors, widths=widths, fusion=fusion, repeats=2, **shared
    )
    columns = {"a": slice(0, 16), "b": slice(16, 40), "c+a": np.r_[40:64, 0:16]}
    for name, parts in extractors.items():
        part_widths = [widths[part] for part in parts]
        for head in heads:
            expected = [
                cross_validate(
                    X[:, columns[name]],
                    y,
                    head,
                    widths=part_widths,
                    fusion=fusion if len(parts) > 1 else "early",
                    random_state=repeat_seed(0, repeat),
                    **shared,
                )
                for repeat in range(2)
            ]
            alone = [value for one in expected for value in one.metrics["accuracy"].folds]
            assert accuracies(found)[name, head.name] == alone
            (entry,) = (
                one.entry
                for one in found.ranking.standings
                if (one.entry.extractor, one.entry.head) == (name, head.name)
            )
            params = [params for one in expected for params in one.best_params]
            assert [choice.params for choice in entry.choices] == params
            assert entry.fusion == (fusion if len(parts) > 1 else None)


def test_all_contenders_are_judged_on_the_same_rows_and_repeats_on_fresh_ones():
    X = np.repeat(np.arange(30.0)[:, None], 2, axis=1)
    SEEN.clear()
    spy = Head("spy", Spy(), {}, "classification")
    found = compare_heads(
        X, np.tile([0, 1], 15), [spy], extractors={"a": [0], "b": [1]}, widths=[1, 1], cv=3, repeats=2
    )
    asked = [rows for what, rows in SEEN if what == "predict"]
    assert asked[:6] == asked[6:] == [frozenset(map(float, fold.test)) for fold in found.folds]
    assert len(set(asked)) == 6
    assert (found.n_repeats, len(found.folds)) == (2, 6)


def test_no_fit_of_search_or_head_sees_a_row_that_is_tested():
    X = np.arange(30.0)[:, None]
    SEEN.clear()
    spy = Head("spy", Spy(), {"C": [1, 2]}, "classification")
    found = compared(X, np.tile([0, 1], 15), spy, cv=3)
    everything = frozenset(X[:, 0])
    tested = [frozenset(map(float, fold.test)) for fold in found.folds]
    searched, final = SEEN[: 2 * 3 * 2 * 3], SEEN[2 * 3 * 2 * 3 :]
    for number, rows in enumerate(tested):
        for what, seen in searched[12 * number : 12 * (number + 1)]:
            assert not seen & rows, what
        assert final[2 * number :][:2] == [("fit", everything - rows), ("predict", rows)]


def test_scaling_is_learnt_in_each_fold_alone():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 2)), np.tile([0, 1], 30)
    X[:, 0] += y
    X[7, 1] = 50.0  # a scaler that sees this row squeezes the second feature of all others
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    inside = cross_val_score(nearest().pipeline, X, y, cv=cv)
    outside = cross_val_score(KNeighborsClassifier(1), StandardScaler().fit_transform(X), y, cv=cv)
    assert inside.tolist() != outside.tolist()
    assert accuracies(compared(X, y, nearest()))["x", "KNeighborsClassifier"] == inside.tolist()
    # A head that does not scale gets the features as they are.
    bare = cross_val_score(KNeighborsClassifier(1), X, y, cv=cv).tolist()
    assert bare != outside.tolist()
    assert accuracies(compared(X, y, load_head(KNeighborsClassifier(1))))["x", "KNeighborsClassifier"] == bare


def test_components_are_learnt_in_each_fold_alone():
    random = np.random.default_rng(3)
    X, y = random.normal(size=(60, 20)), np.tile([0, 1], 30)
    X[:, :3] += y[:, None]
    head = load_head(KNeighborsClassifier(3))
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    reduced = make_pipeline(StandardScaler(), PCA(2, random_state=0))
    inside = cross_val_score(make_pipeline(reduced, KNeighborsClassifier(3)), X, y, cv=cv)
    outside = cross_val_score(KNeighborsClassifier(3), reduced.fit_transform(X), y, cv=cv)
    assert inside.tolist() != outside.tolist()
    found = compared(X, y, head, n_components=2)
    assert accuracies(found)["x", "KNeighborsClassifier"] == inside.tolist()


def test_exact_copies_do_not_leak():
    random = np.random.default_rng(0)
    X = np.repeat(random.normal(size=(60, 20)), 2, axis=0)
    y = np.repeat(random.permutation(np.repeat([0, 1], 30)), 2)
    keys = np.repeat(random.integers(0, 256, (60, 32), dtype=np.uint8), 2, axis=0)
    leaking = compared(X, y, nearest())
    honest = compared(X, y, nearest(), keys=keys)
    assert leaking.best.metrics["accuracy"].mean > 0.75
    assert honest.best.metrics["accuracy"].mean < 0.65
    assert "60 samples are exact copies of others; copies are never on both sides of a fold" in honest.notes


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_groups_are_on_one_side_of_every_fold_inner_ones_and_those_of_stacks_included(fusion):
    random = np.random.default_rng(0)
    groups = random.integers(0, 12, 60)
    X, y = np.arange(120.0).reshape(2, 60).T, np.tile(["a", "b"], 30)
    group_of = {value: group for row, group in zip(X, groups, strict=True) for value in row}
    SEEN.clear()
    spy = Head("spy", ScoringSpy(), {"C": [1, 2]}, "classification")
    found = compare_heads(
        X, y, [spy], extractors={"a": [0], "a+b": [0, 1]}, widths=[1, 1], cv=3, groups=groups.astype(str),
        fusion=fusion,
    )  # fmt: skip
    for (what, fitted), (then, asked) in itertools.pairwise(SEEN):
        if (what, then) == ("fit", "predict") and not fitted >= asked:
            assert not {group_of[value] for value in fitted} & {group_of[value] for value in asked}
    for fold in found.folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
    assert "rows of one group are never on both sides of a fold" in found.notes


def test_labels_without_meaning_are_answered_at_chance():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(160, 60)), random.permutation(np.repeat(["a", "b"], 80))
    found = compare_heads(
        X, y, [small_ridge(), load_head("centroid")], extractors={"a": [0], "a+b": [0, 1]}, widths=[30, 30],
        cv=3, n_components=10,
    )  # fmt: skip
    # Four standard deviations of a fair coin tossed 160 times.
    for one in found.ranking.standings:
        assert abs(one.entry.metrics["accuracy"].mean - 0.5) < 4 * 0.5 / 160**0.5
    assert any("not told from always answering the most frequent class" in note for note in found.notes)


def test_the_luck_of_a_search_is_not_taken_for_skill():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 3)), np.tile([0, 1], 30)
    head = Head("guess", Guess(), {"seed": list(range(60))}, "classification")
    luckiest = max((Guess(seed).fit(X, y).predict(X) == y).mean() for seed in head.grid["seed"])
    found = compared(X, y, head, cv=2)
    assert luckiest > 0.62
    assert found.best.metrics["accuracy"].mean < 0.55


def test_the_datas_own_split_is_fitted_chosen_and_scored_as_it_says():
    X = np.arange(40.0)[:, None]
    y = np.tile([0, 1], 20)
    splits = np.array(["train"] * 20 + ["val"] * 8 + ["test"] * 12)
    SEEN.clear()
    spy = Head("spy", Spy(), {"C": [1, 2]}, "classification")
    found = compared(X, y, spy, splits=splits)
    rows = [frozenset(X[splits == name, 0]) for name in ("train", "val", "test")]
    searched = [("fit", rows[0]), ("predict", rows[1])]
    assert [*searched, *searched, ("fit", rows[0] | rows[1]), ("predict", rows[2])] == SEEN
    assert len(found.folds) == 1
    assert found.best.metrics["accuracy"].folds == [0.5]
    assert found.ranking.standings[1].intervals["accuracy"] == pytest.approx((0.25, 0.75), abs=0.05)


def test_copies_across_the_datas_own_split_are_said():
    X, y, _ = three_parts(40)
    keys = np.arange(40, dtype=np.uint8)[:, None].repeat(32, axis=1)
    keys[35] = keys[3]
    found = compared(X, y, load_head("centroid"), splits=["train"] * 30 + ["test"] * 10, keys=keys)
    assert found.notes[0].startswith("1 of the 10 rows tested are exact copies of rows trained on")


def test_a_search_that_two_contenders_share_is_done_once_and_progress_counts_all_fits():
    X, y, widths = three_parts(60)
    told = []
    SEEN.clear()
    spy = Head("spy", ScoringSpy(), {"C": [1, 2]}, "classification")
    compare_heads(
        X, y, [spy], extractors={"a": [0], "b": [1], "a+b": [0, 1]}, widths=widths, cv=3, fusion="late",
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    searches, finals = 2 * (2 * 3 * 3), 3 * 3
    # A stack fits each part once on all rows and once in each of its three folds.
    stacks = 3 * 2 * (1 + 3)
    assert sum(what == "fit" for what, _ in SEEN) == searches + 2 * 3 + stacks
    assert told[-1] == (searches + finals, searches + finals)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_fewer_inner_folds_than_asked_for_are_said():
    X, y, _ = three_parts(60)
    rare = np.flatnonzero(y == "c")[:-3]
    X, y = np.delete(X, rare, axis=0), np.delete(y, rare)
    found = compared(X, y, small_ridge(), cv=3)
    assert found.notes[0] == (
        "parameters were chosen by 2 inner folds instead of 3, as many as the smallest class of the training rows"
        " allows"
    )


def test_what_a_fit_had_to_say_is_in_the_contenders_own_notes():
    X, y, _ = three_parts(60)
    head = load_head("mlp")
    slow = Head("mlp", head.pipeline.set_params(mlpclassifier__max_iter=1), {}, "classification")
    found = compared(X, y, slow, cv=2)
    (note,) = found.best.notes
    assert note.startswith("2 of 2 fits did not converge, 2 of them with the parameters chosen")


def test_regression_heads_are_ranked_by_r2():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 6))
    y = X[:, :3] @ [1.0, 2.0, 3.0] + 0.1 * random.normal(size=60)
    found = compare_heads(
        X, y, [load_head("ridge_regression")], extractors={"a": [0], "b": [1]}, widths=[3, 3], cv=3
    )
    assert (found.task, found.metric, found.best.extractor) == ("regression", "r2", "a")
    assert [one.verdict for one in found.ranking.standings] == ["baseline", "best", "worse"]
    assert found.ranking.standings[0].entry.head == "mean"


@pytest.mark.parametrize(
    ("heads", "options", "message"),
    [
        ([], {}, "expected at least one head, got none"),
        (["logreg", "logreg"], {}, "two heads are called 'logreg'; name each once"),
        (
            ["logreg", "svr"],
            {},
            "'logreg' is for classification and 'svr' for regression; compare heads of one",
        ),
        (["logreg"], {"metric": "acuracy"}, r"Did you mean accuracy\?"),
        (["ridge"], {"metric": "neg_log_loss"}, "needs probabilities, which head 'ridge' lacks"),
        (["logreg"], {"random_state": -1}, "random_state: expected a whole number from 0"),
        (["logreg"], {"repeats": 0}, "repeats: expected a whole number from 1, got 0"),
        (["logreg"], {"repeats": "2"}, "repeats: expected a whole number from 1, got '2'"),
        (
            ["logreg"],
            {"repeats": 2, "splits": ["train", "test"] * 30},
            "has its own split, which cannot be shuffled",
        ),
        (["logreg"], {"cv": 61}, r"fewer than the 61 folds; lower cv to \d+, add"),
        (["logreg"], {"fusion": "middle"}, "unknown fusion 'middle'"),
        (["logreg"], {"fusion": "late"}, "late fusion needs two extractors or more"),
        (["logreg"], {"n_components": 0}, "n_components must be a whole number, at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_feature_is_needed(heads, options, message):
    y = three_parts(60)[1]
    with pytest.raises(UsageError, match=message) as caught:
        check_comparison(y, [load_head(name) for name in heads], **{"n_parts": [1, 1], **options})
    assert "\n" not in str(caught.value)


def test_a_metric_that_no_fold_can_give_is_refused_before_any_feature_is_needed():
    y = three_parts(60)[1]
    order = np.argsort(y, kind="stable")
    splits = np.full(60, "train", dtype=object)
    splits[order[:15]] = "test"  # of class a alone
    options = {"n_parts": [1], "splits": splits}
    heads = [load_head("logreg")]
    with pytest.raises(
        UsageError, match="'roc_auc_ovr' has no value in the data's own split: no row tested is of class 'b'"
    ):
        check_comparison(y, heads, metric="roc_auc_ovr", **options)
    check_comparison(y, heads, metric="neg_log_loss", **options)
    check_comparison(y, heads, metric="f1_macro", **options)
    # Classes c, none of which is trained on.
    splits = np.where(y == "c", "test", "train")
    splits[order[:3]] = "test"
    for metric in ("roc_auc_ovr", "neg_log_loss"):
        with pytest.raises(
            UsageError, match=f"'{metric}' .* no training row is of class 'c', which is tested"
        ):
            check_comparison(y, heads, metric=metric, n_parts=[1], splits=splits)
    # Groups of one class each: no fold of two tests all three.
    groups = np.empty(60, dtype=object)
    groups[order] = [f"{label}{at % 2}" for at, label in enumerate(y[order])]
    with pytest.raises(UsageError, match="has no value in any of the 6 folds"):
        check_comparison(
            y, [load_head(LogisticRegression())], metric="roc_auc_ovr", n_parts=[1], groups=groups, cv=6
        )


def test_components_that_only_a_stack_has_too_few_rows_for_are_refused_before_any_fit():
    X, y, widths = three_parts(60)
    SEEN.clear()
    spy = Head("spy", ScoringSpy(), {"C": [1, 2]}, "classification")
    splits = ["train"] * 36 + ["val"] * 6 + ["test"] * 18
    options = {"widths": widths, "cv": 2, "splits": splits, "fusion": "late", "n_components": 22}
    with pytest.raises(UsageError, match=r"PCA cannot make 22 components of part 2.* has 21 rows"):
        compare_heads(X, y, [spy], extractors={"a": [0], "a+b": [0, 1]}, **options)
    assert not SEEN
