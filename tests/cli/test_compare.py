import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from featx.errors import UsageError

QUICK = ["-x", "color_histogram", "-x", "pixels:size=1", "--head", "centroid", "--cv", "2", "--jobs", "1"]
FUSED = ["-x", "color_histogram+pixels:size=1"]


def test_the_leaderboard_shows_every_contender_with_its_verdict(text, photos):
    shown = text("compare", photos, *QUICK, *FUSED)
    lines = shown.out.splitlines()
    assert lines[0] == "3 contenders on 20 samples; estimated by 2-fold nested cross-validation"
    assert lines[2].split() == [
        *(
            "extractor",
            "head",
            "features",
            "accuracy",
            "95%",
            "interval",
            "verdict",
            "fit",
            "s",
            "predict",
            "s",
        )
    ]
    assert lines[3].split()[:2] == ["-", "majority"]
    assert " baseline " in lines[3]
    assert re.search(r" best +\d\.\d\d +\d\.\d{3}$", lines[4])
    assert {line.split()[0] for line in lines[4:7]} == {
        "color_histogram",
        "pixels",
        "color_histogram+pixels",
    }
    assert lines[8].startswith("color_histogram+pixels (early) with centroid gains 0.000 accuracy on")
    assert shown.err.splitlines()[0] == "2 classes: blue (10), red (10)"
    assert any(line.startswith("note: ") for line in shown.err.splitlines())
    quiet = text("compare", photos, *QUICK, "-q")
    assert quiet.err.splitlines() == [line for line in shown.err.splitlines() if line.startswith("note: ")]


def test_json_has_the_results_and_the_command_as_typed(command, photos, tmp_path):
    done = command("compare", photos, *QUICK, "--repeats", "2", "--metric", "f1_macro")
    assert done["command"] == f"featx compare {photos} {' '.join(QUICK)} --repeats 2 --metric f1_macro --json"
    assert done["directory"] == str(tmp_path)
    assert done["data"]["source"] == str(photos)
    assert done["out"] is None
    assert (done["protocol"]["metric"], done["protocol"]["n_folds"]) == ("f1_macro", 4)
    assert [one["verdict"] for one in done["results"]][:2] == ["baseline", "best"]
    assert done["best"]["head"] == "centroid"


def test_a_run_has_its_results_tables_command_and_report(command, photos, tmp_path):
    done = command("compare", photos, *QUICK, "--out", "runs/a b")
    run = tmp_path / "runs" / "a b"
    assert done["out"] == "runs/a b"
    assert sorted(path.name for path in run.iterdir()) == [
        "command.txt",
        "folds.csv",
        "report.html",
        "results.csv",
        "results.json",
    ]
    assert json.loads((run / "results.json").read_text()) == {
        name: done[name] for name in done if name != "out"
    }
    with open(run / "folds.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 20
    assert {row["id"] for row in rows} == {f"{name}/{at}.png" for name in ("blue", "red") for at in range(10)}


def test_the_command_of_a_run_gives_the_same_numbers_again(featx, photos, tmp_path):
    """It starts from anywhere: the script knows where it was typed."""
    options = ["-x", "pixels:size=1", "--head", "ridge", "--cv", "2", "--jobs", "1"]
    first = featx("compare", "photos", *options, "--out", "a run")
    assert first.returncode == 0, first.stderr
    run = tmp_path / "a run"
    before = {path.name: path.read_text() for path in run.iterdir()}
    (tmp_path / "bin").mkdir()
    executable = tmp_path / "bin" / "featx"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} -m featx "$@"\n')
    executable.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FEATX_CACHE": str(tmp_path / "cache"),
    }
    again = subprocess.run(
        ["sh", run / "command.txt"], cwd="/", env=env, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    after = {path.name: path.read_text() for path in run.iterdir()}
    assert after["folds.csv"] == before["folds.csv"]
    assert after["command.txt"] == before["command.txt"]
    assert timeless(after["results.json"]) == timeless(before["results.json"])


def timeless(text):
    """Return results without what tells the time."""
    results = json.loads(text)
    del results["created"]
    for one in results["results"]:
        del one["fit_seconds"], one["predict_seconds"]
    return results


def test_late_fusion_and_components_are_options(command, photos):
    done = command(
        "compare", photos, *FUSED, "--head", "ridge", "--cv", "2", "--jobs", "1", "--fusion", "late"
    )
    assert done["best"]["fusion"] == "late"
    done = command("compare", photos, *FUSED, "--head", "centroid", "--cv", "2", "--jobs", "1", "--pca", "2")
    assert done["protocol"]["n_components"] == 2


def test_a_broken_photo_is_left_out_of_every_contender(command, photos, broken):
    done = command("compare", photos, *QUICK)
    assert done["data"]["n_samples"] == 19
    assert [failure["id"] for failure in done["data"]["failures"]] == ["blue/3.png"]


def test_exact_copies_are_told_and_kept_together(text, photos):
    for at in range(3):
        (photos / "red" / f"copy{at}.png").write_bytes((photos / "red" / f"{at}.png").read_bytes())
    shown = text("compare", photos, *QUICK).err
    assert "note: 3 samples are exact copies of others; copies are never on both sides of a fold\n" in shown


def test_the_datas_own_split_is_one_fold(text, photos, tmp_path):
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name},{'test' if path.stem > '5' else 'train'}"
        for path in sorted(photos.rglob("*.png"))
    ]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split", *rows]))
    shown = text("compare", "m.csv", *QUICK).out
    assert "2 contenders on 20 samples; scored on the 8 rows that the split column holds out" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "svr"], "head 'svr' needs numeric labels"),
        (["--metric", "acc"], r"unknown metric 'acc'"),
        (["-x", "color_histogram"], "'color_histogram' is given twice"),
        (["--head", "centroid"], "two heads are called 'centroid'"),
        (["--out", "photos"], "'photos' holds 'blue' and no run of featx"),
        (["--out", "photos/red/0.png"], "is no folder"),
        (["--jobs", "0"], "--jobs: expected -1"),
    ],
)
def test_wrong_use_is_one_line_before_any_work(arguments, message, text, photos, tmp_path):
    options = QUICK if arguments[0] != "--head" or arguments[1] != "svr" else QUICK[:4]
    with pytest.raises(UsageError, match=message):
        text("compare", "photos", *options, *arguments)
    assert not Path(tmp_path / "cache").exists()


def test_numbers_are_compared_too(text, tmp_path):
    lines = ["path,label"]
    for at in range(12):
        Image.new("RGB", (8, 8), (10 * at, 0, 0)).save(tmp_path / f"{at}.png")
        lines.append(f"{at}.png,{at * 0.5}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    shown = text(
        "compare", "m.csv", "-x", "pixels:size=1", "--head", "ridge_regression", "--cv", "2", "--jobs", "1"
    )
    assert "mean" in shown.out.splitlines()[3]
    assert "r2" in shown.out.splitlines()[2]
