import json
import re
import shutil

import pytest

from featx.errors import UsageError

SMALL = ["--ways", "2", "--shots", "1,3", "--queries", "5", "--episodes", "20", "--jobs", "1"]


def test_fewshot_gives_mean_and_interval_by_extractor_head_and_shots(command, photos):
    done = command(
        "fewshot",
        "photos",
        "-x",
        "pixels:size=1",
        "-x",
        "lbp",
        "--head",
        "centroid",
        "--head",
        "ridge",
        *SMALL,
    )
    assert [(one["extractor"], one["head"], one["shots"]) for one in done["results"]] == [
        (extractor, head, shots)
        for shots in (1, 3)
        for extractor in ("pixels:size=1", "lbp")
        for head in ("centroid", "ridge")
    ]
    colour = done["results"][0]
    assert colour["mean"] == 1.0
    assert colour["ci95"] == [1.0, 1.0]
    assert done["protocol"] == {
        "ways": 2,
        "shots": [1, 3],
        "queries": 5,
        "episodes": 20,
        "chance": 0.5,
        "random_state": 0,
        "heads": [{"name": name, "recipe": "built in"} for name in ("centroid", "ridge")],
    }
    assert done["data"]["source"] == "photos"
    assert done["out"] is None
    assert done["command"].startswith("featx fewshot photos -x pixels:size=1 -x lbp --head centroid")
    assert [point["labels_per_class"] for point in done["learning_curve"][0]["points"]] == [1, 2, 5, None]


def test_a_run_of_the_other_kind_is_refused_before_any_work(text, photos, tmp_path):
    given = ["photos", "-x", "pixels:size=1", "--jobs", "1"]
    text("fewshot", *given, *SMALL, "--labels", "none", "--out", "few")
    text("compare", *given, "--head", "centroid", "--cv", "2", "--out", "compared")
    shutil.rmtree(tmp_path / "cache")
    for command, run, kind in (("compare", "few", "fewshot"), ("fewshot", "compared", "compare")):
        with pytest.raises(UsageError, match=f"'{run}' holds a run of 'featx {kind}'"):
            text(command, *given, "--out", run)
    assert not (tmp_path / "cache").exists()


def test_fewshot_writes_a_run_and_shows_the_table_and_the_curve(text, photos, tmp_path):
    shown = text("fewshot", photos, "-x", "pixels:size=1", *SMALL, "--labels", "2,all", "--out", "run")
    assert "2-way accuracy over 20 episodes, the same for all, of 20 samples in 2 classes" in shown.out
    assert "pixels     centroid  1-shot  1.000     1.000 to 1.000  -            the only one\n" in shown.out
    assert "pixels     centroid  1.000 +- 0.000  1.000" in shown.out
    assert re.search(
        r"accuracy on (\d+) samples held out.*\n.* all \((\d+) in all\)\n", shown.out
    ).groups() == ("7", "13")
    assert "wrote run; open run/report.html" in shown.out
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    assert "2 classes: blue (10), red (10)" in shown.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["kind"] == "fewshot"
    assert results["directory"] == str(tmp_path)
    assert (tmp_path / "run" / "command.txt").read_text().endswith("--out run\n")


def test_fewshot_says_what_a_curve_could_not_be_fitted_on(text, photos):
    shown = text(
        "fewshot", photos, "-x", "pixels:size=1", *SMALL[:2], "--shots", "3", *SMALL[4:], "--head", "knn"
    )
    assert (
        "note: pixels with knn, learning curve at 2 labels: head 'knn' cannot be fitted on 2 rows"
        in shown.err
    )
    assert "knn   -" in shown.out


def test_fewshot_without_a_curve(command, photos):
    assert command("fewshot", photos, "-x", "lbp", *SMALL, "--labels", "none")["learning_curve"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shots", "1;5"], r"--shots: expected whole numbers such as 1,5; got '1;5'"),
        (["--shots", "all"], r"--shots: expected whole numbers"),
        (["--labels", "few"], r"--labels: expected whole numbers such as 1,2,5,all, or none; got 'few'"),
        (["--ways", "3"], r"need 3 classes .* Lower ways to 2"),
        (["--out", "photos"], r"'photos' holds 'blue' and no run of featx"),
    ],
)
def test_fewshot_refuses_before_anything_is_computed(text, photos, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        text("fewshot", "photos", "-x", "lbp", *SMALL, *arguments)
    assert not (tmp_path / "cache" / "hints.sqlite").exists()
