import pytest

from featx.report.answers import answer_of_comparison, answer_of_few_shot


def scored(mean, low, high, metric="accuracy"):
    return {metric: {"mean": mean, "std": 0.02, "ci95": [low, high], "folds": [mean] * 5}}


def contender(label, head, metrics, verdict="worse", p_value=0.001, fusion=None):
    return {
        "extractor": f"{label}:weights=x",
        "label": label,
        "head": head,
        "fusion": fusion,
        "metrics": metrics,
        "verdict": verdict,
        "p_value": p_value,
    }


@pytest.fixture
def comparison():
    baseline = contender(None, "majority", scored(0.2, 0.2, 0.2), "baseline")
    return {
        "protocol": {"metric": "accuracy", "split": False},
        "baseline": "most frequent class",
        "results": [
            {**baseline, "extractor": None},
            contender("mobilenet_v2", "logreg", scored(0.836, 0.801, 0.878), "best", None),
            contender(
                "mobilenet_v2+hog", "logreg", scored(0.83, 0.79, 0.87), "as good as the best", 0.8, "late"
            ),
            contender("hog", "svm", scored(0.45, 0.4, 0.5)),
        ],
        "fusion_gains": [
            {
                "extractor": "mobilenet_v2+hog:weights=x",
                "head": "logreg",
                "fusion": "late",
                "best_part": "mobilenet_v2:weights=x",
                "gain": -0.006,
                "ci95": [-0.02, 0.008],
                "p_value": 0.8,
            }
        ],
        "learning_curve": {
            "points": [
                {"labels_per_class": 1, "n_labels": 5, "mean": 0.4},
                {"labels_per_class": 5, "n_labels": 25, "mean": 0.8},
                {"labels_per_class": None, "n_labels": 240, "mean": 0.84},
            ]
        },
    }


def test_the_title_answers_which_and_how_good(comparison):
    title, sentences = answer_of_comparison(comparison)
    assert title == "mobilenet_v2 with logreg is best: accuracy 0.84 (0.80 to 0.88)"
    assert sentences == [
        "As good, as far as these folds tell: mobilenet_v2+hog (late fusion) with logreg.",
        "Fusion gains no more than chance: mobilenet_v2+hog with logreg has \u22120.006 (\u22120.020 to +0.008)"
        " accuracy over mobilenet_v2.",
        "Always answering the most frequent class has accuracy 0.20.",
    ]


def test_a_fusion_that_gains_is_said_to_gain(comparison):
    weak, real = comparison["fusion_gains"] * 2
    strong = {**real, "gain": 0.03, "ci95": [0.01, 0.05], "p_value": 0.01}
    comparison["fusion_gains"] = [{**weak, "gain": 0.2, "p_value": 0.3}, strong]
    assert answer_of_comparison(comparison)[1][1] == (
        "Fusion gains: mobilenet_v2+hog with logreg +0.030 (+0.010 to +0.050) accuracy over mobilenet_v2."
    )
    # One that surely loses does not gain.
    comparison["fusion_gains"] = [{**strong, "gain": -0.03, "ci95": [-0.05, -0.01]}]
    assert answer_of_comparison(comparison)[1][1].startswith("Fusion gains no more than chance")
    comparison["fusion_gains"] = [{**weak, "p_value": None, "ci95": None}]
    said = answer_of_comparison(comparison)[1][1]
    assert said.startswith("These folds are too few to tell whether fusion gains: mobilenet_v2+hog")


def test_a_winner_is_told_from_one_that_folds_cannot_tell(comparison):
    comparison["results"][2]["verdict"] = "worse"
    assert answer_of_comparison(comparison)[1][0] == "Better than all 2 others by the paired test."
    comparison["results"][3].update(verdict="not told", p_value=None)
    said = "These folds are too few to tell mobilenet_v2 with logreg from: hog with svm."
    assert answer_of_comparison(comparison)[1][0] == said
    assert "Better" not in " ".join(answer_of_comparison(comparison)[1])
    comparison["results"][2]["verdict"] = "as good as the best"
    first, second, *_ = answer_of_comparison(comparison)[1]
    assert (first[:8], second) == ("As good,", said)
    comparison["results"][2:] = []
    assert answer_of_comparison(comparison)[1][0].startswith("Fusion")


def test_a_split_has_test_samples_and_no_folds(comparison):
    comparison["protocol"]["split"] = True
    comparison["results"][3].update(verdict="not told", p_value=None)
    comparison["fusion_gains"][0].update(p_value=None, ci95=None)
    title, sentences = answer_of_comparison(comparison)
    assert "fold" not in " ".join([title, *sentences])
    assert sentences[:3] == [
        "As good, as far as these test samples tell: mobilenet_v2+hog (late fusion) with logreg.",
        "These test samples are too few to tell mobilenet_v2 with logreg from: hog with svm.",
        "These test samples are too few to tell whether fusion gains: mobilenet_v2+hog with logreg has \u22120.006"
        " accuracy over mobilenet_v2.",
    ]


def test_the_only_contender_is_compared_with_none(comparison):
    comparison["results"][1]["verdict"] = "the only one"
    comparison["results"][2:] = []
    comparison["fusion_gains"] = []
    title, sentences = answer_of_comparison(comparison)
    assert title == "mobilenet_v2 with logreg has accuracy 0.84 (0.80 to 0.88)"
    assert [sentence.split()[0] for sentence in sentences] == ["Always"]


def episodes(label, shots, mean, verdict):
    p_value = {"best": None, "as good as the best": 0.4, "worse": 0.001, "not told": None}.get(verdict)
    return {
        "verdict": verdict,
        "p_value": p_value,
        "extractor": label,
        "label": label,
        "head": "centroid",
        "shots": shots,
        "n_features": 3,
        "mean": mean,
        "std": 0.1,
        "ci95": [mean - 0.003, mean + 0.003],
        "difference": 0.0,
        # Does not hold zero, whatever the verdict: it is not corrected for all that are compared.
        "difference_ci95": None if verdict == "best" else [-0.2, -0.05],
    }


def few_shots(*results):
    best = {}
    for one in results:
        if one["shots"] not in best or one["mean"] > best[one["shots"]]["mean"]:
            best[one["shots"]] = one
    return {
        "protocol": {"ways": 5, "shots": sorted(best), "episodes": 600},
        "results": list(results),
        "best": [{"shots": k, "extractor": one["extractor"], "head": "centroid"} for k, one in best.items()],
    }


def test_few_shot_answers_for_every_number_of_labels():
    found = few_shots(
        episodes("a", 1, 0.5, "best"),
        episodes("b", 1, 0.499, "as good as the best"),
        episodes("a", 5, 0.7, "best"),
        episodes("b", 5, 0.6, "worse"),
    )
    title, sentences = answer_of_few_shot(found)
    assert title == (
        "a with centroid is best: accuracy 0.500 (0.497 to 0.503) from 1 label per class"
        " and 0.700 (0.697 to 0.703) from 5 labels per class"
    )
    guessing = "Guessing among 5 classes has accuracy 0.20."
    assert sentences == ["5-way 1-shot, as good, as far as these episodes tell: b with centroid.", guessing]
    found = few_shots(
        episodes("a", 1, 0.5, "best"),
        episodes("b", 1, 0.4, "worse"),
        episodes("a", 5, 0.6, "worse"),
        episodes("b", 5, 0.7, "best"),
    )
    title, sentences = answer_of_few_shot(found)
    assert (
        title == "From 1 label per class a with centroid is best: accuracy 0.50; from 5 b with centroid: 0.70"
    )
    assert sentences == ["Better than the other by the paired test, at every number of shots.", guessing]
    found["protocol"]["chance"] = 0.25
    assert answer_of_few_shot(found)[1][-1] == "Guessing among 5 classes has accuracy 0.25."


def test_few_shot_names_some_of_many_equals():
    others = [episodes(name, 1, 0.4, "as good as the best") for name in "bcdef"]
    sentences = answer_of_few_shot(few_shots(episodes("a", 1, 0.5, "best"), *others))[1]
    assert sentences == [
        "5-way 1-shot, as good, as far as these episodes tell: b with centroid; c with centroid; d with centroid;"
        " and 2 more.",
        "Guessing among 5 classes has accuracy 0.20.",
    ]


def test_few_shot_runs_of_before_verdicts_have_none():
    found = few_shots(episodes("a", 1, 0.5, "best"), episodes("b", 1, 0.4, "worse"))
    for one in found["results"]:
        del one["verdict"], one["p_value"]
    title, sentences = answer_of_few_shot(found)
    assert title == "a with centroid is best: accuracy 0.500 (0.497 to 0.503) from 1 label per class"
    assert sentences == ["Guessing among 5 classes has accuracy 0.20."]


def test_the_only_few_shot_contender_is_compared_with_none():
    title, sentences = answer_of_few_shot(few_shots(episodes("a", 1, 0.5, "the only one")))
    assert title == "a with centroid has accuracy 0.500 (0.497 to 0.503) from 1 label per class"
    assert sentences == ["Guessing among 5 classes has accuracy 0.20."]
