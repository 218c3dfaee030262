import shutil
import sys
import time

import pytest

from featx.engine import Settings, estimate, read_extractors
from featx.samples import read_samples


def estimated(data, extractors, cache, *, precision="float32"):
    settings = Settings(device="cpu", precision=precision)
    return estimate(read_samples(data), read_extractors(extractors), cache=cache, settings=settings)


@pytest.fixture
def trials(monkeypatch):
    """Return the list of runs that are tried, as it grows."""
    module = sys.modules["featx.engine.estimate"]
    done = []
    real = module.run
    monkeypatch.setattr(module, "run", lambda *some, **others: done.append(real(*some, **others)) or done[-1])
    return done


def test_it_counts_distinct_missing_samples_and_writes_no_vector(fill, pictures, tmp_path):
    folder = pictures(12)
    fill([folder / f"{number:03}.png" for number in range(4)])
    shutil.copy(folder / "010.png", folder / "010-again.png")
    (folder / "gone.png").symlink_to("nowhere")
    shards = sorted((tmp_path / "cache").rglob("*.h5"))

    planned = estimated(folder, ["pixels:size=1", "pixels:size=2"], tmp_path / "cache")

    assert planned.samples == len(read_samples(folder))
    assert planned.missing == (8, 12)
    assert planned.size_bytes == (8 * 3 * 4, 12 * 12 * 4)
    assert planned.seconds > 0
    assert sorted((tmp_path / "cache").rglob("*.h5")) == shards


def test_broken_samples_are_no_reason_to_stop(pictures, tmp_path):
    folder = pictures(3)
    (folder / "001.png").write_bytes(b"broken")
    assert estimated(folder, "pixels:size=1", tmp_path / "cache").missing == (3,)
    for path in folder.iterdir():
        path.write_bytes(b"broken " + path.name.encode())
    assert estimated(folder, "pixels:size=1", tmp_path / "cache").missing == (3,)


def test_vectors_in_half_precision_take_half_the_room(pictures, tmp_path):
    extractors = ["nano:size=64", "pixels:size=1"]
    planned = estimated(pictures(2), extractors, tmp_path / "cache", precision="bfloat16")
    assert [task.spec.n_features for task in planned.tasks] == [624, 3]
    assert planned.size_bytes == (2 * 624 * 2, 2 * 3 * 4)


def test_nothing_is_tried_where_nothing_is_missing(fill, pictures, tmp_path, request, trials):
    folder = pictures(3)
    fill(folder)
    request.getfixturevalue("no_extractor_is_built")
    planned = estimated(folder, "pixels:size=1", tmp_path / "cache")
    assert planned.missing == (0,)
    assert planned.seconds == 0
    assert trials == []


def test_only_extractors_that_lack_something_are_tried(fill, pictures, tmp_path, counted):
    folder = pictures(4)
    extractor, batches = counted
    fill(folder, extractor)
    assert estimated(folder, [extractor, "pixels:size=1"], tmp_path / "cache").missing == (0, 4)
    assert sum(batches) == 4


def test_seconds_are_those_of_all_missing_samples(pictures, tmp_path, monkeypatch, trials):
    monkeypatch.setattr(sys.modules["featx.engine.estimate"], "_TRIED", 5)
    planned = estimated(pictures(50), "glcm", tmp_path / "cache")
    [trial] = trials
    # From the first to the last, at even distance: pictures of one kind often stand together.
    assert trial.table.ids.tolist() == ["000.png", "012.png", "024.png", "036.png", "049.png"]
    assert planned.seconds == trial.extracting_seconds * 10


def test_samples_that_lack_one_extractor_are_not_tried_with_all(fill, pictures, tmp_path, counted):
    folder = pictures(6)
    extractor, batches = counted
    fill([folder / f"{number:03}.png" for number in range(4)], extractor)
    batches.clear()
    assert estimated(folder, [extractor, "pixels:size=1"], tmp_path / "cache").missing == (2, 6)
    assert sum(batches) == 2


def test_seconds_are_the_sum_over_samples_that_lack_one_extractor_and_that_lack_both(
    fill, pictures, tmp_path, trials
):
    folder = pictures(6)
    fill([folder / f"{number:03}.png" for number in range(4)])
    planned = estimated(folder, ["pixels:size=1", "pixels:size=2"], tmp_path / "cache")
    assert [len(trial.table) for trial in trials] == [4, 2]
    assert planned.seconds == sum(trial.extracting_seconds for trial in trials)


def test_an_extractor_under_two_names_is_counted_once(pictures, tmp_path):
    folder = pictures(4)
    assert estimated(folder, ["pixels:size=1", "descriptor/pixels:size=1"], tmp_path / "cache").missing == (
        4,
        0,
    )


@pytest.mark.parametrize(("n_pictures", "runtime"), [(5, "torch"), (6, "openvino")])
def test_what_is_tried_is_run_by_what_all_of_them_would_be(
    pictures, tmp_path, monkeypatch, trials, n_pictures, runtime
):
    monkeypatch.setattr(sys.modules["featx.engine.estimate"], "_TRIED", 2)
    monkeypatch.setattr("featx.engine.hardware._MANY_SAMPLES", 6)
    folder = pictures(n_pictures - 1)
    shutil.copy(folder / "000.png", folder / "again.png")
    estimated(folder, "nano:size=64", tmp_path / "cache")
    [trial] = trials
    assert len(trial.table) == 2
    assert trial.runtimes == (runtime,)


def test_building_networks_is_no_part_of_the_seconds_that_are_scaled(pictures, tmp_path, monkeypatch, trials):
    station = sys.modules["featx.engine.station"]
    real = station.load
    monkeypatch.setattr(station, "load", lambda *given: time.sleep(1) or real(*given))
    planned = estimated(pictures(2), "pixels:size=1", tmp_path / "cache")
    assert planned.starting_seconds >= 1
    assert planned.seconds + planned.starting_seconds == trials[0].seconds
