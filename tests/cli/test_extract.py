import json
import re
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from featx.cli.extract import _advice
from featx.errors import ExtractionError, UsageError


def test_extract_says_what_it_did_for_all_and_for_each_extractor(command, photos):
    first = command("extract", photos, "-x", "pixels", "-x", "color_histogram")
    for part in (first, *first["extractors"]):
        assert (part["samples"], part["cached"], part["extracted"], part["failed"]) == (20, 0, 20, 0)
        assert part["images_per_second"] > 0
        assert part["bottleneck"] in part["stages"]
    assert set(first["stages"]) == {"read", "digest", "decode", "forward", "write"}
    assert [part["extractor"] for part in first["extractors"]] == ["pixels", "color_histogram"]
    second = command("extract", photos, "-x", "pixels")
    assert (second["cached"], second["extracted"]) == (20, 0)
    assert 0 < first["starting_seconds"] <= first["seconds"]
    assert second["starting_seconds"] is None
    assert second["images_per_second"] is None
    assert second["bottleneck"] is None


def test_what_ran_the_backbones_is_told(command, text, photos):
    backbone = ["-x", "nano:size=64", "--device", "cpu", "--precision", "float32"]
    assert command("extract", photos, "-x", "pixels")["runtimes"] == []
    assert command("extract", photos, *backbone, "--runtime", "openvino")["runtimes"] == ["openvino"]
    shown = text("extract", photos, *backbone, "--cache", "other").out
    assert re.search(r"\n\d+ images/s by torch, the first kept after \d+\.\d s; ", shown)


def test_extractors_that_share_a_part_compute_it_once(command, photos):
    done = command("extract", photos, "-x", "pixels", "-x", "pixels+color_histogram")
    assert [part["extractor"] for part in done["extractors"]] == ["pixels", "color_histogram"]


def test_duplicates_count_as_cached(command, photos):
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "0.png").read_bytes())
    done = command("extract", photos, "-x", "pixels")
    assert (done["samples"], done["cached"], done["extracted"]) == (21, 1, 20)


def test_a_broken_file_is_recorded_and_named(command, text, photos, broken):
    done = command("extract", photos, "-x", "pixels")
    assert (done["extracted"], done["failed"]) == (19, 1)
    assert [failure["id"] for failure in done["failures"]] == ["blue/3.png"]
    again = command("extract", photos, "-x", "pixels")
    assert (again["cached"], again["extracted"], again["failed"]) == (19, 0, 1)
    assert text("extract", photos, "-x", "pixels").err.startswith("left out blue/3.png: ")


def test_on_error_raise_ends_with_the_broken_file(text, photos, broken):
    with pytest.raises(ValueError, match=r"blue/3\.png"):
        text("extract", photos, "-x", "pixels", "--on-error", "raise")


def test_many_failures_fail_the_run_but_lose_nothing(command, text, photos, capsys):
    for index in range(90):
        (photos / "red" / f"broken{index}.png").write_bytes(b"nothing")
    with pytest.raises(ExtractionError, match=r"90 of 110 samples failed \(81\.8%\)"):
        text("extract", photos, "-x", "pixels")
    assert capsys.readouterr().out == ""
    done = command("extract", photos, "-x", "pixels", "--max-error-rate", "1")
    assert (done["cached"], done["extracted"], done["failed"]) == (20, 0, 90)


@pytest.mark.parametrize("arguments", [["extract"], ["fit"], ["predict", "model.featx"]])
def test_a_run_that_fails_by_its_samples_still_says_which(arguments, command, featx, photos):
    command("fit", photos, "-x", "pixels", "--cv", "2", "--out", "model.featx")
    for index in range(90):
        (photos / "red" / f"broken{index}.png").write_bytes(b"nothing")
    extractor = [] if arguments[0] == "predict" else ["-x", "pixels"]
    done = featx(*arguments, photos, *extractor, "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert (values["cached"], values["failed"]) == (20, 90)
    assert len(values["failures"]) == 90
    lines = done.stderr.splitlines()
    if arguments == ["fit"]:
        assert lines.pop(0) == "2 classes: blue (10), red (100)"
    assert lines[0] == "left out red/broken0.png: not an image (starts like text)"
    assert lines[5] == "left out 85 more samples; --json lists all"
    assert "90 of 110 samples failed" in lines[6]
    assert len(lines) == 7


def test_dry_run_counts_what_is_missing_and_writes_no_vector(command, photos, tmp_path):
    planned = command("extract", photos, "-x", "pixels", "--dry-run")
    assert planned["samples"] == 20
    assert planned["extractors"][0]["missing"] == 20
    assert planned["size_bytes"] == 20 * 768 * 4
    both = command("extract", photos, "-x", "pixels", "-x", "pixels:size=8", "--dry-run")
    assert both["size_bytes"] == 20 * (768 + 192) * 4
    assert planned["seconds"] > 0
    assert not list((tmp_path / "cache").rglob("*.h5"))
    command("extract", photos, "-x", "pixels")
    assert command("extract", photos, "-x", "pixels", "--dry-run")["extractors"][0]["missing"] == 0


def test_export_holds_rows_in_order_with_labels_and_provenance(command, photos, broken, tmp_path):
    done = command("extract", photos, "-x", "pixels", "--export", tmp_path / "f.h5")
    assert done["export"] == str(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["features"].shape == (19, 768)
        assert file["features"].dtype == np.float32
        assert file["ids"].asstr()[3] == "blue/4.png"
        assert set(file["labels"].asstr()[:]) == {"blue", "red"}
        assert file.attrs["extractor"] == "pixels"


def test_export_is_refused_for_several_extractors_before_any_work(text, photos, tmp_path):
    with pytest.raises(UsageError, match="expected one -x"):
        text("extract", photos, "-x", "pixels", "-x", "hog", "--export", "f.h5")
    assert not (tmp_path / "cache").exists()


def test_a_person_reads_counts_and_rate(text, photos):
    shown = text("extract", photos, "-x", "pixels")
    assert "pixels: 20 samples, 0 cached, 20 extracted, 0 failed, 768 features each" in shown.out
    rate = r"\n\d+ images/s, the first kept after \d+\.\d s; \w+ was the busiest stage "
    rate += r"\(busy (\d+)% of the time\)(; .+ would help)?\n"
    share = re.search(rate, shown.out)
    assert 0 <= int(share[1]) <= 100


def run_of(shares, *extractors, runtimes=("openvino",)):
    """Return as much of a run as says how busy its stages were."""
    specs = [SimpleNamespace(pixels=pixels, layer=layer) for pixels, layer in extractors]
    return SimpleNamespace(
        bottleneck=max(shares, key=shares.get) if shares else None,
        shares=shares,
        outcomes=[SimpleNamespace(task=SimpleNamespace(spec=spec)) for spec in specs],
        runtimes=runtimes,
    )


@pytest.mark.parametrize(
    ("shares", "extractors", "expected"),
    [
        (
            {"decode": 0.9, "forward": 0.2},
            [("exact", ("features",)), ("fast", ("features",))],
            "more cores, or pixels=fast",
        ),
        (
            {"decode": 0.9},
            [("fast", ("features",))],
            "more cores, or pixels=nvjpeg on a GPU",
        ),
        ({"decode": 0.9}, [("nvjpeg", ("features",))], "more cores"),
        (
            {"decode": 0.9},
            [("exact", ()), ("exact", ("features",))],
            "more cores, or fewer or smaller hand-made descriptors",
        ),
        (
            {"decode": 0.6, "forward": 0.9},
            [("exact", ("features",))],
            "a faster device, such as a GPU, or a smaller backbone",
        ),
        ({"write": 0.5}, [("exact", ())], "a faster disk for the cache"),
        ({"write": 0.49}, [("exact", ())], None),
        ({}, [("exact", ())], None),
    ],
)
def test_a_stage_that_limits_a_run_is_answered_with_what_would_help(shares, extractors, expected):
    assert _advice(run_of(shares, *extractors)) == expected


def test_a_faster_runtime_that_is_not_installed_is_named(monkeypatch):
    run = run_of({"forward": 0.9}, ("exact", ("features",)), runtimes=("torch",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert "openvino" not in _advice(run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "OpenVINO on a CPU (pip install openvino)" in _advice(run)


def test_the_advice_is_in_the_json_and_the_line(command, text, photos, monkeypatch):
    monkeypatch.setattr("featx.cli.extract._advice", lambda done: "luck" if done.bottleneck else None)
    assert text("extract", photos, "-x", "pixels").out.endswith("% of the time); luck would help\n")
    assert command("extract", photos, "-x", "pixels:size=1")["advice"] == "luck"
    assert command("extract", photos, "-x", "pixels")["advice"] is None


def test_a_person_reads_what_a_dry_run_counted(text, photos):
    text("extract", photos / "red", "-x", "pixels")
    lines = text("extract", photos, "-x", "pixels", "-x", "pixels:size=8", "--dry-run").out.splitlines()
    assert lines[:2] == [
        "pixels: 10 of 20 samples to extract, 30.0 KiB to store",
        "pixels:size=8: 20 of 20 samples to extract, 15.0 KiB to store",
    ]
    assert re.fullmatch(r"about \d+ s, and \d+ s to start", lines[2])
    text("extract", photos, "-x", "pixels")
    assert text("extract", photos, "-x", "pixels", "--dry-run").out.splitlines() == [
        "pixels: 0 of 20 samples to extract, 0 B to store"
    ]
    assert len(lines) == 3


def test_a_person_reads_where_the_export_is(text, photos):
    assert text("extract", photos, "-x", "pixels", "--export", "f.h5").out.endswith("\nwrote f.h5\n")


def test_what_a_folder_holds_besides_images_is_counted_and_said(command, text, photos):
    (photos / "red" / "notes.txt").write_text("none")
    (photos / "red" / ".hidden.png").write_text("none")
    assert command("extract", photos, "-x", "pixels")["skipped"] == {
        "unknown extensions": 1,
        "hidden files": 1,
    }
    shown = text("extract", photos, "-x", "pixels").err
    assert shown.startswith("featx: ")
    assert "1 unknown extension (" in shown or "1 unknown extension, " in shown
    assert text("extract", photos, "-x", "pixels", "-q").err == ""
