import numpy as np
import pytest
from scipy.stats import t as student

from featx.errors import UsageError
from featx.evaluation.folds import Fold
from featx.evaluation.grid_search import Answer, FitLog
from featx.evaluation.ranking import Entry, rank
from featx.evaluation.scores import MetricScores, score_answer
from featx.evaluation.significance import compare_folds, folds_interval, holm

LOG = FitLog(frozenset(), None)
SIZES = {"n_train": 40.0, "n_test": 10.0}
FOLDS = [Fold(np.delete(np.arange(50), test), test, []) for test in np.arange(50).reshape(5, 10)]
NOBODY = [0.1, 0.2, 0.1, 0.2, 0.1]


def entry(extractor, values, *, parts=(0,), head="logreg", fusion=None, answers=()):
    defined = [value for value in values if value is not None]
    scores = MetricScores(float(np.mean(defined)), float(np.std(defined)), list(values))
    return Entry(extractor, parts, head, fusion, [], [], list(answers), {"accuracy": scores}, [])


def ranked(*entries, baseline=NOBODY, metric="accuracy"):
    return rank(
        entries,
        entry(None, baseline, head="majority"),
        np.empty(50),
        FOLDS,
        task="classification",
        metric=metric,
    )


def test_the_best_is_first_after_the_baseline_and_the_others_are_told_from_it_or_not():
    best = entry("best", [0.9, 0.8, 0.9, 0.8, 0.9])
    near = entry("near", [0.8, 0.9, 0.8, 0.8, 0.9], parts=(1,))
    far = entry("far", [0.4, 0.4, 0.5, 0.3, 0.4], parts=(2,))
    found = ranked(far, best, near)
    assert [one.entry.extractor for one in found.standings] == [None, "best", "near", "far"]
    assert [one.verdict for one in found.standings] == ["baseline", "best", "as good as the best", "worse"]
    assert found.standings[1].difference is None
    assert found.standings[3].difference.mean == pytest.approx(-0.46)
    assert found.gains == []


def test_the_p_values_over_folds_are_corrected_for_the_comparisons_with_the_best_and_the_baselines_for_all_of_its():
    values = {"a": [0.9, 0.8, 0.9, 0.8, 0.9], "b": [0.8, 0.9, 0.8, 0.8, 0.7], "c": [0.6, 0.7, 0.6, 0.7, 0.6]}
    found = ranked(*(entry(name, scores, parts=(at,)) for at, (name, scores) in enumerate(values.items())))

    def plain(one, other):
        return compare_folds(one, other, **SIZES, resolution=0.1).p_value

    among = holm([plain(values[one], values[other]) for one, other in ("ba", "ca")])
    baseline = holm([plain(NOBODY, other) for other in values.values()])
    told = [one.difference.p_value for one in found.standings if one.difference is not None]
    assert told == pytest.approx([baseline[0], *among])
    assert found.standings[2].intervals["accuracy"] == pytest.approx(folds_interval(values["b"], **SIZES))


def test_a_single_contender_is_the_only_one():
    found = ranked(entry("a", [0.9, 0.8, 0.9, 0.8, 0.9]))
    assert [one.verdict for one in found.standings] == ["baseline", "the only one"]


def test_equal_folds_have_an_interval_of_the_width_of_rounding():
    found = ranked(entry("a", [0.9] * 5))
    low, high = found.standings[1].intervals["accuracy"]
    assert (low, high) == pytest.approx(folds_interval([0.9] * 5, **SIZES, resolution=0.1))
    assert low < 0.9 < high


def test_an_interval_ends_where_the_metric_does():
    found = ranked(entry("a", [1.0, 1.0, 0.9, 1.0, 1.0]))
    low, high = found.standings[1].intervals["accuracy"]
    assert high == 1.0
    assert 0.85 < low < 0.95


def test_equal_answers_are_as_good_and_keep_their_order():
    same = [0.9, 0.8, 0.9, 0.8, 0.9]
    found = ranked(entry("a", same), entry("b", same, parts=(1,)))
    assert [one.entry.extractor for one in found.standings] == [None, "a", "b"]
    assert found.standings[2].verdict == "as good as the best"
    assert (found.standings[2].difference.mean, found.standings[2].difference.p_value) == (0.0, 1.0)
    assert found.notes == []


def test_what_could_not_be_told_apart_is_said_with_how_much_it_would_take():
    a, b = [0.9, 0.8, 0.9, 0.8, 0.9], [0.8, 0.9, 0.8, 0.8, 0.9]
    low, high = compare_folds(b, a, **SIZES, resolution=0.1).ci95
    assert ranked(entry("a", a), entry("b", b, parts=(1,))).notes == [
        f"accuracy has to differ by about {(high - low) / 2:.2g} to be told apart by these 5 folds;"
        " more repeats tell smaller ones"
    ]


def test_the_difference_that_it_would_take_is_wider_for_more_contenders_and_no_more_than_a_share_can_differ_by():
    a, b, c = [0.9, 0.8, 0.9, 0.8, 0.9], [0.8, 0.9, 0.8, 0.8, 0.9], [0.2, 0.1, 0.2, 0.1, 0.1]
    low, high = compare_folds(b, a, **SIZES, resolution=0.1).ci95
    least = (high - low) / 2 * student.isf(0.05 / 2 / 2, 4) / student.isf(0.05 / 2, 4)
    (note,) = ranked(entry("a", a), entry("b", b, parts=(1,)), entry("c", c, parts=(2,))).notes
    assert note.startswith(f"accuracy has to differ by about {least:.2g} to be told")
    wild = [entry("a", [1.0, 0.0, 1.0, 1.0, 1.0]), entry("b", [0.0, 1.0, 1.0, 0.0, 0.5], parts=(1,))]
    assert not any("has to differ" in note for note in ranked(*wild).notes)


def test_a_best_that_is_no_better_than_the_baseline_is_said_to_be_so():
    assert ranked(entry("a", [0.5, 0.4, 0.6, 0.5, 0.4]), baseline=[0.4, 0.5, 0.5, 0.4, 0.5]).notes == [
        "the best is not told from always answering the most frequent class, by these 5 folds; more"
        " samples or repeats may tell"
    ]


def test_a_fusion_is_compared_with_the_best_of_its_parts_under_the_same_head():
    fused = entry("a+b", [0.9, 0.9, 0.9, 0.8, 0.9], parts=(0, 1), fusion="early")
    parts = [entry("a", [0.5] * 5, parts=(0,)), entry("b", [0.8, 0.7, 0.9, 0.8, 0.7], parts=(1,))]
    other = entry("a", [0.9] * 5, parts=(0,), head="svm")
    (gain,) = ranked(fused, *parts, other).gains
    assert (gain.extractor, gain.head, gain.fusion, gain.best_part) == ("a+b", "logreg", "early", "b")
    expected = compare_folds(fused.metrics["accuracy"].folds, parts[1].metrics["accuracy"].folds, **SIZES)
    assert gain.difference == expected


def test_a_fusion_whose_parts_do_not_contend_is_named():
    values = [0.9, 0.9, 0.9, 0.8, 0.9]
    fused = [
        entry(name, values, parts=parts, head=head, fusion="early")
        for name, parts in (("a+b:size=2", (0, 1)), ("b:size=2+c", (1, 2)), ("odd+name+a", (3, 0)))
        for head in ("logreg", "svm")
    ]
    found = ranked(*fused, *(entry("a", values, head=head) for head in ("logreg", "svm")))
    assert [gain.extractor for gain in found.gains] == [
        "a+b:size=2",
        "a+b:size=2",
        "odd+name+a",
        "odd+name+a",
    ]
    assert found.notes == [
        "not every part of a+b:size=2 contends by itself: add -x b:size=2 to see what the fusion gains",
        "no part of b:size=2+c contends by itself: add -x b:size=2 -x c to see what the fusion gains",
        "not every part of odd+name+a contends by itself: name them too to see what the fusion gains",
    ]


def test_folds_without_a_value_are_left_out_of_both():
    found = ranked(entry("a", [0.9, None, 0.9, 0.8, 0.9]), entry("b", [0.5, 0.9, None, 0.6, 0.5], parts=(1,)))
    difference = found.standings[2].difference
    assert difference.mean == pytest.approx(np.mean([0.4, 0.2, 0.4]) * -1)


def test_what_no_fold_compares_is_not_told():
    apart = [entry("a", [0.9, None, None, None, None]), entry("b", [None, 0.5, 0.6, 0.5, 0.5], parts=(1,))]
    found = ranked(*apart)
    assert [one.verdict for one in found.standings] == ["baseline", "best", "not told"]
    assert found.standings[2].difference.p_value is None


def test_a_metric_without_any_value_cannot_rank():
    with pytest.raises(UsageError, match="metric 'roc_auc_ovr' has no value in any fold for head 'majority'"):
        ranked(entry("a", [0.5] * 5), metric="roc_auc_ovr")


def of_one_fold(predictions, y):
    """Return entries that each answer the rows of one fold so, and the first as the baseline."""
    entries = []
    for at, predicted in enumerate(predictions):
        answer = Answer(np.asarray(predicted), None, None, False, 0.0, 0.0, LOG)
        values = [score_answer(y, answer, task="classification")["accuracy"]]
        entries.append(entry(f"x{at}" if at else None, values, parts=(at,), answers=[answer]))
    return entries


def test_one_fold_is_judged_by_draws_of_its_rows_and_copies_are_no_more_rows():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 60)
    near = np.where(random.random(60) < 0.2, 1 - y, y)
    baseline, *entries = of_one_fold([np.zeros(60, int), y, near, 1 - y], y)
    folds = [Fold(np.arange(60, 80), np.arange(60), [])]
    shared = {"task": "classification", "metric": "accuracy"}
    found = rank(entries, baseline, y, folds, **shared)
    assert [one.verdict for one in found.standings] == ["baseline", "best", "worse", "worse"]
    assert found.standings[1].intervals["accuracy"] == (1.0, 1.0)
    low, high = found.standings[2].intervals["accuracy"]
    assert low < found.standings[2].entry.metrics["accuracy"].mean < high
    assert found.standings[3].difference.p_value == pytest.approx(3 / 10_001)
    # All errors in one group of copies are one error.
    together = np.where(near != y, 1000, np.arange(60))
    grouped = rank(entries, baseline, y, folds, together=together, **shared)
    assert grouped.standings[2].verdict == "as good as the best"
    assert grouped.notes[-1].endswith("by these 60 test rows; more test rows tell smaller ones")
    # One group is one observation, of which nothing can be told.
    single = rank(entries, baseline, y, folds, together=np.zeros(60, int), **shared)
    assert {one.difference and one.difference.p_value for one in single.standings} == {None}
    assert {one.intervals["accuracy"] for one in single.standings} == {None}
    assert [one.verdict for one in single.standings] == ["baseline", "best", "not told", "not told"]
    assert single.notes[-1] == "too few test groups to tell any of the contenders apart: 1"


def test_many_contenders_on_one_fold_get_more_draws_so_that_some_can_be_told():
    y = np.arange(20) % 2
    baseline, *entries = of_one_fold([1 - y, y, *[1 - y] * 60], y)
    found = rank(
        entries,
        baseline,
        y,
        [Fold(np.arange(20, 30), np.arange(20), [])],
        task="classification",
        metric="accuracy",
    )
    assert {one.verdict for one in found.standings[2:]} == {"worse"}


def test_among_ten_equals_over_folds_a_false_alarm_is_rare():
    # Scores of 50 folds, five times ten, that share half as much luck as the correction allows for.
    random = np.random.default_rng(0)
    sizes = {"n_train": 4000, "n_test": 1000}
    folds = [Fold(np.arange(1000, 5000), np.arange(1000), [])] * 50
    alarms, uncorrected = 0, 0
    for _ in range(150):
        luck = 0.125**0.5 * random.normal(size=(10, 1)) + random.normal(size=(10, 50))
        scores = 0.7 + 0.02 * luck
        entries = [entry(f"x{at}", values, parts=(at,)) for at, values in enumerate(scores)]
        baseline = entry(None, [0.1] * 50, head="majority")
        found = rank(entries, baseline, np.empty(5000), folds, task="classification", metric="accuracy")
        alarms += any(one.verdict == "worse" for one in found.standings)
        best = scores[scores.mean(axis=1).argmax()]
        to_it = [compare_folds(one, best, **sizes).p_value for one in scores if one is not best]
        uncorrected += min(to_it) < 0.05
    assert alarms <= 0.1 * 150 < uncorrected


def test_among_ten_equals_on_one_fold_a_false_alarm_is_as_rare_as_promised(monkeypatch):
    monkeypatch.setattr("featx.evaluation.ranking._N_DRAWS", 10)
    monkeypatch.setattr("featx.evaluation.ranking._N_SWAPS", (1000, 100_000))
    random = np.random.default_rng(0)
    y = np.arange(100) % 2
    fold = Fold(np.arange(100, 110), np.arange(100), [])
    alarms = 0
    for _ in range(60):
        baseline, *entries = of_one_fold([1 - y, *np.where(random.random((10, 100)) < 0.3, 1 - y, y)], y)
        found = rank(entries, baseline, y, [fold], task="classification", metric="accuracy")
        alarms += any(one.verdict == "worse" for one in found.standings)
    assert alarms <= 0.1 * 60
