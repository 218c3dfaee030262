import re

from featx.evaluation.significance import LEVEL
from featx.report.leaderboard import is_real


def test_one_contender_or_one_fold_is_no_winner_by_a_test(elements, results):
    results["results"] = results["results"][:2]
    results.update(fusion_gains=[], learning_curve=None, inspection=None, best_details=None, notes=[])
    for one in results["results"]:
        one.update(p_value=None, difference_ci95=None)
        for scores in one["metrics"].values():
            scores["ci95"] = None
    found = elements(results)
    title = next(element.text for element in found if element.tag == "h1")
    assert re.fullmatch(r"\S+ with \w+ has accuracy 0\.\d\d\d", title)
    sections = [element.attributes["id"] for element in found if element.tag == "section"]
    assert sections == ["leaderboard", "provenance"]


def test_few_shot_verdicts_are_those_of_the_run_and_not_of_its_intervals(elements, few_shot_results):
    for one in few_shot_results["results"]:
        is_best = one["difference_ci95"] is None
        one.update(verdict="best" if is_best else "as good as the best", p_value=None if is_best else 0.0678)
        one["difference_ci95"] = None if is_best else [-0.3, -0.1]
    found = elements(few_shot_results)
    assert [row.attributes["class"] for row in found.having("data-contender")] == [
        "best",
        "equal",
        "baseline",
    ] * 2
    assert "0.068" in next(e.text for e in found if e.has(id="shots-1"))
    said = found.lead("shots-1")
    assert "by the paired t-test on the same episodes, corrected for all pairs" in said
    assert ("as good as the best" in said, "worse" in said) == (True, False)
    assert "t-test" not in found.lead("shots-3")


def test_a_few_shot_run_of_before_verdicts_shows_none(elements, few_shot_results):
    for one in few_shot_results["results"]:
        for name in ("verdict", "p_value"):
            one.pop(name, None)
    found = elements(few_shot_results)
    rows = found.having("data-contender")
    assert {row.attributes["data-verdict"] for row in rows} == {"", "baseline"}
    assert {row.attributes["class"] for row in rows} == {"untold", "baseline"}
    guessing = [float(row.attributes["data-mean"]) for row in rows if row.has(**{"class": "baseline"})]
    assert guessing == [1 / few_shot_results["protocol"]["ways"]] * 2
    assert (
        found.lead("shots-1")
        == "Accuracy with its 95% interval, over 40 episodes that are the same for all. \u25c0 off the scale."
    )
    shown = next(e.text for e in found if e.has(id="shots-1"))
    assert not any(word in shown for word in ("best,", "worse", "as good", "\u2013 \u00b7"))


def test_the_key_holds_the_verdicts_that_there_are(elements, results):
    verdicts = ["not told", "worse", "as good as the best", "not told", "worse"]
    for one, verdict in zip(results["results"][2:], verdicts, strict=True):
        one["verdict"] = verdict
    found = elements(results)
    said = found.lead("leaderboard")
    assert "\u25c6 best, \u25cb as good as the best, \u25cf worse, \u25cb not told." in " ".join(said.split())
    styles = [row.attributes["class"] for row in found.having("data-contender")]
    assert styles == ["best", "untold", "worse", "equal", "untold", "worse", "baseline"]
    results["results"][1]["verdict"] = "the only one"
    results["results"][2:] = []
    results["fusion_gains"] = []
    found = elements(results)
    assert [row.attributes["class"] for row in found.having("data-contender")] == ["best", "baseline"]
    assert "the only one" in found.having("data-contender")[0].text
    assert "\u25c6" not in found.lead("leaderboard")


def test_the_test_that_decides_is_the_one_that_was_made(elements, results):
    found = elements(results)
    assert "by the corrected resampled t-test on the same folds, corrected for all comparisons" in found.lead(
        "leaderboard"
    )
    assert "test samples of the first fold" in found.lead("labels")
    results["protocol"]["split"] = True
    found = elements(results)
    assert "by a permutation test that swaps two contenders\u2019 answers" in found.lead("leaderboard")
    # The notes are the run's own words, and the provenance has its number of folds.
    own = ("notes", "provenance")
    told = [e.text for e in found if e.tag in ("header", "section") and e.attributes.get("id") not in own]
    assert "fold" not in " ".join(told)
    assert "t-test" not in " ".join(told)


def test_gains_are_judged_by_their_p_values(elements, results):
    for one, gain, p_value in zip(results["fusion_gains"], (0.1, -0.1), (0.01, 0.02), strict=True):
        one.update(gain=gain, ci95=[gain - 0.2, gain + 0.2], p_value=p_value)
    rows = elements(results).having("data-gain")
    assert [row.attributes["class"] for row in rows] == ["best", "worse"]
    assert [row.text.split(" \u00b7 ")[-1].split()[0] for row in rows] == ["gains", "loses"]
    for one in results["fusion_gains"]:
        one.update(ci95=[0.01, 0.2], p_value=0.06)
    found = elements(results)
    rows = found.having("data-gain")
    assert [row.attributes["class"] for row in rows] == ["equal", "equal"]
    assert all("not told from chance" in row.text for row in rows)
    assert "crosses" not in found.lead("fusion")


def test_a_gain_is_told_from_chance_at_the_level_of_the_run():
    assert is_real({"p_value": LEVEL * 0.999})
    assert not is_real({"p_value": LEVEL})
