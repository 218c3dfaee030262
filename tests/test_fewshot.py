import csv
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import ttest_1samp, ttest_rel
from sklearn.linear_model import LogisticRegression

from featx.errors import UsageError
from featx.evaluation.significance import holm
from featx.fewshot import few_shot

CLASSES = np.repeat(["a", "b", "c"], 16)


def pictures(*, noise=40):
    """Return pictures of 8 x 8 of three classes, told by their colours, and not always."""
    random = np.random.default_rng(0)
    colours = np.repeat([[150, 100, 100], [100, 150, 100], [100, 100, 150]], 16, axis=0)
    drawn = colours + random.normal(0, noise, (48, 3))
    noisy = drawn[:, None, None, :] + random.normal(0, 20, (48, 8, 8, 3))
    return noisy.clip(0, 255).astype(np.uint8)


SMALL = {"ways": 3, "shots": (1, 3), "queries": 8, "episodes": 40, "labels": CLASSES}
COLOUR, GREY = "pixels:size=1", "lbp"


@pytest.fixture(scope="module")
def found():
    return few_shot(
        pictures(),
        [COLOUR, GREY, f"{COLOUR}+{GREY}"],
        heads=["centroid", "ridge"],
        labels_per_class=[1, 4, None],
        **SMALL,
    )


def test_every_extractor_and_head_is_judged_at_every_number_of_shots(found):
    rows = found.results["results"]
    assert [(one["shots"], one["label"], one["head"]) for one in rows] == [
        (shots, label, head)
        for shots in (1, 3)
        for label in ("pixels", "lbp", "pixels+lbp")
        for head in ("centroid", "ridge")
    ]
    assert [one["parts"] for one in rows[::2][:3]] == [[0], [1], [0, 1]]
    assert rows[4]["n_features"] == rows[0]["n_features"] + rows[2]["n_features"]
    for one in rows:
        told = found.accuracies[one["extractor"], one["head"], one["shots"]]
        assert one["mean"] == pytest.approx(told.mean())
        assert one["std"] == pytest.approx(told.std(ddof=1))
        assert one["ci95"][0] < one["mean"] < one["ci95"][1]
        assert (one["ways"], one["queries"], one["episodes"]) == (3, 8, 40)


def test_colour_is_best_where_colour_tells_the_classes(found):
    assert [one["extractor"] for one in found.results["best"]] in (
        [COLOUR, COLOUR],
        [f"{COLOUR}+{GREY}", COLOUR],
        [COLOUR, f"{COLOUR}+{GREY}"],
    )
    means = {(one["label"], one["head"], one["shots"]): one["mean"] for one in found.results["results"]}
    assert means["pixels", "centroid", 3] > means["pixels", "centroid", 1] > 1 / 3 + 0.1
    assert means["pixels", "centroid", 3] > means["lbp", "centroid", 3] + 0.1


def test_the_difference_to_the_best_is_paired_by_episode(found):
    for one in found.results["results"]:
        best = next(best for best in found.results["best"] if best["shots"] == one["shots"])
        away = (
            found.accuracies[one["extractor"], one["head"], one["shots"]]
            - found.accuracies[best["extractor"], best["head"], one["shots"]]
        )
        assert one["difference"] == pytest.approx(away.mean())
        if one["verdict"] == "best":
            assert (one["extractor"], one["head"]) == (best["extractor"], best["head"])
            assert (one["difference_ci95"], one["p_value"]) == (None, None)
        else:
            assert one["difference_ci95"] == pytest.approx(
                ttest_1samp(away, 0).confidence_interval(0.95), abs=1e-12
            )


def test_p_values_are_corrected_for_all_pairs_of_the_same_shots_and_the_verdict_follows(found):
    keys = [(label, head) for label in (COLOUR, GREY, f"{COLOUR}+{GREY}") for head in ("centroid", "ridge")]
    verdicts = set()
    for shots in (1, 3):
        own = {key: found.accuracies[*key, shots] for key in keys}
        pairs = list(itertools.combinations(keys, 2))
        p_values = dict(
            zip(pairs, holm([ttest_rel(own[one], own[other]).pvalue for one, other in pairs]), strict=True)
        )
        rows = {
            (one["extractor"], one["head"]): one for one in found.results["results"] if one["shots"] == shots
        }
        (best,) = (key for key, one in rows.items() if one["verdict"] == "best")
        for key, one in rows.items():
            if key == best:
                continue
            expected = p_values.get((key, best), p_values.get((best, key)))
            assert one["p_value"] == pytest.approx(expected)
            assert one["verdict"] == ("worse" if expected < 0.05 else "as good as the best")
            verdicts.add(one["verdict"])
    assert verdicts == {"worse", "as good as the best"}


def test_a_single_contender_is_the_only_one_and_few_episodes_are_said_to_be_few():
    told = few_shot(pictures(), GREY, labels_per_class=[], **{**SMALL, "shots": np.int64(1)})
    assert told.results["protocol"]["shots"] == [1]
    assert told.results["notes"] == ["40 episodes are few, so the intervals are wide; 600 or more are usual"]
    assert {one["verdict"] for one in told.results["results"]} == {"the only one"}


def test_every_extractor_and_head_has_a_curve_of_the_same_sizes(found):
    curves = found.results["learning_curve"]
    assert len(curves) == 6
    for curve in curves:
        assert [point["labels_per_class"] for point in curve["points"]] == [1, 4, None]
        assert [point["n_labels"] for point in curve["points"]] == [3, 12, 32]
        assert curve["n_test"] == 16
    assert curves[0]["points"][2]["mean"] > 0.5


def test_a_run_is_repeated_to_the_last_digit_and_another_seed_is_another_run(found):
    options = {"heads": ["ridge"], "labels_per_class": [1]}
    again = few_shot(pictures(), [COLOUR], **options, **SMALL)
    other = few_shot(pictures(), [COLOUR], **options, random_state=1, **SMALL)
    first = next(
        one for one in found.results["results"] if (one["label"], one["head"]) == ("pixels", "ridge")
    )
    assert again.results["results"][0]["mean"] == first["mean"]  # whoever is judged beside it
    assert other.results["results"][0]["mean"] != first["mean"]
    fresh = few_shot(pictures(), [COLOUR], **options, random_state=None, **SMALL)
    seed = fresh.results["protocol"]["random_state"]
    named = few_shot(pictures(), [COLOUR], **options, random_state=seed, **SMALL)
    assert named.results["results"] == fresh.results["results"]
    assert named.results["learning_curve"] == fresh.results["learning_curve"]


def test_what_is_saved_is_read_as_plain_json_and_tables(found, tmp_path):
    assert found.save(tmp_path / "run") == tmp_path / "run"
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results == json.loads(json.dumps(found.results))
    assert (results["schema"], results["kind"], results["command"]) == (1, "fewshot", None)
    assert results["protocol"]["chance"] == pytest.approx(1 / 3)
    assert results["protocol"]["heads"] == [
        {"name": name, "recipe": "built in"} for name in ("centroid", "ridge")
    ]
    with (tmp_path / "run" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [one["mean"] for one in results["results"]]
    assert [row["ci95_low"] for row in rows] == [str(one["ci95"][0]) for one in results["results"]]
    with (tmp_path / "run" / "learning_curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6 * 3
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"holds 'mine\.txt' and no run of featx"):
        found.save(tmp_path / "else")


def test_a_run_shows_its_best_and_is_a_table(found):
    assert repr(found).startswith("FewShot(3-way: 1-shot 0.")
    assert " with " in repr(found)
    table = found.table()
    assert len(table) == 12
    assert {
        "extractor",
        "head",
        "shots",
        "mean",
        "ci95_low",
        "difference_ci95_high",
        "p_value",
        "verdict",
    } <= set(table.columns)


def test_copies_and_groups_are_never_on_both_sides():
    # Every picture of a class is a copy of one of four, so that three are learnt from and one is asked about.
    images = pictures()[np.repeat(np.arange(0, 48, 4), 4)]
    told = few_shot(images, GREY, labels_per_class=[], **SMALL)
    assert told.results["data"]["n_duplicates"] == 36
    assert "3-shot episodes ask 1 queries per class, not 8" in " ".join(told.results["notes"])
    groups = np.repeat(np.arange(24), 2)  # pairs: 8 groups in a class
    grouped = few_shot(pictures(), GREY, labels_per_class=[], groups=groups, **SMALL)
    assert [one["queries"] for one in grouped.results["results"]] == [7, 5]


def test_the_curve_is_tested_on_the_split_of_the_data(tmp_path):
    from PIL import Image

    lines = ["path,label,split"]
    for number, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{CLASSES[number]},{'test' if number % 4 == 0 else 'train'}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    options = {**SMALL, "labels": None}
    told = few_shot(tmp_path / "m.csv", COLOUR, labels_per_class=[2], **options)
    assert [point["n_labels"] for point in told.results["learning_curve"][0]["points"]] == [6, 36]
    assert told.results["data"]["source"] == str(tmp_path / "m.csv")


def test_classes_that_only_the_rows_tested_have_are_named(tmp_path):
    lines = ["path,label,split"]
    for number, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{CLASSES[number]},{'test' if CLASSES[number] == 'c' else 'train'}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    told = few_shot(tmp_path / "m.csv", COLOUR, labels_per_class=2, **{**SMALL, "labels": None, "shots": 1})
    assert "learning curve: classes tested that no training row has: c" in told.results["notes"]


def test_sizes_that_are_asked_for_and_cannot_be_had_are_said():
    def said(**options):
        return [
            note
            for note in few_shot(pictures(), GREY, **{**SMALL, "shots": 1}, **options).results["notes"]
            if note.startswith("the learning curve leaves out")
        ]

    assert said(labels_per_class=[1, 300, 500, None]) == [
        "the learning curve leaves out 300 and 500 labels per class: the smallest class has no more, or they would be"
        " all rows"
    ]
    assert said() == said(labels_per_class=[1, None]) == []


def test_without_a_third_to_hold_out_there_is_a_note_in_place_of_the_curve():
    labels = [*CLASSES[:46], "d", "d"]
    told = few_shot(pictures(), GREY, **{**SMALL, "labels": labels, "shots": 1})
    assert told.results["learning_curve"] == []
    assert any(
        note.startswith(
            "no learning curve, as no third of the samples can be held out for it: class 'd' has 2"
        )
        for note in told.results["notes"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 4}, r"need 4 classes with 4 samples or more.* Lower ways to 3"),
        ({"shots": []}, "shots: expected at least one number"),
        ({"shots": "1,5"}, r"shots: expected a number or a list such as \(1, 5\), got '1,5'"),
        ({"shots": [1, "5"]}, "shots: expected a whole number from 1, got '5'"),
        ({"labels_per_class": "1"}, r"labels_per_class: expected a number or a list such as \(1, 5, None\)"),
        ({"shots": (1, 20), "ways": 4}, r"Lower ways to 3 and shots to 15, or add samples\."),
        ({"random_state": -1}, "random_state: expected a whole number from 0 .* got -1"),
        ({"shots": 16}, "got 0 such of 3 classes"),
        (
            {"heads": ["knn"]},
            r"'knn' asks 5 neighbours, more than the 3 samples of a 3-way 1-shot episode\. Take more",
        ),
        ({"heads": []}, "expected at least one head, got none"),
        ({"heads": ["svr"]}, "needs classification heads; 'svr' is a regression head"),
        ({"heads": ["ridge", "svr"]}, "'ridge' is for classification and 'svr' for regression"),
        ({"heads": ["ridge", "ridge"]}, "two heads are called 'ridge'"),
        ({"labels_per_class": [0]}, "labels per class are whole numbers from 1"),
        ({"labels": np.arange(48) / 7}, "needs classes as labels; got numbers such as 0.142857"),
    ],
)
def test_what_gives_no_episodes_is_refused_before_anything_is_extracted(counted, options, message):
    extractor, batches = counted
    with pytest.raises(UsageError, match=message):
        few_shot(pictures(), extractor, **{**SMALL, **options})
    assert not batches


def test_all_contenders_are_extracted_in_one_pass(counted):
    extractor, batches = counted
    steps = []
    few_shot(
        pictures(),
        [extractor, [extractor, GREY]],
        heads=[LogisticRegression()],
        labels_per_class=[1],
        **{**SMALL, "shots": 1, "episodes": 3},
        progress=steps.append,
    )
    assert sum(batches) == 48
    fitting = [(step.done, step.total) for step in steps if step.work == "fitting"]
    # Two contenders: three episodes, and then twenty draws and all rows, of each.
    assert {total for _, total in fitting} == {2 * (3 + 21)}
    assert [done for done, _ in fitting] == [3, 6, 22, 27, 43, 48]


def test_names_of_one_extractor_are_told_to_be_the_same():
    with pytest.raises(UsageError, match="are the same: every vector is equal"):
        few_shot(pictures(), [GREY, f"descriptor/{GREY}"], **SMALL)


def test_where_a_split_leaves_no_rows_for_a_curve_the_episodes_stand(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for number in range(36):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
        split = "train" if number < 18 else "test"
        rows.append({"path": str(path), "label": "abc"[number % 3], "split": split, "group": str(number % 9)})
    found = few_shot(
        pd.DataFrame(rows),
        "pixels:size=1",
        ways=3,
        shots=1,
        queries=1,
        episodes=10,
        labels_per_class=[1, None],
    )
    assert found.results["learning_curve"] == []
    assert any(note.startswith("no learning curve: ") for note in found.results["notes"])
    assert found.results["results"][0]["episodes"] == 10
