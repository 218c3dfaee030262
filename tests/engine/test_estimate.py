import shutil
import sys

from featx.engine import Settings, estimate, read_extractors
from featx.samples import read_samples


def estimated(data, extractors, cache):
    settings = Settings(device="cpu", precision="float32")
    return estimate(read_samples(data), read_extractors(extractors), cache=cache, settings=settings)


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


def test_nothing_is_tried_where_nothing_is_missing(fill, pictures, tmp_path, request):
    folder = pictures(3)
    fill(folder)
    request.getfixturevalue("no_extractor_is_built")
    planned = estimated(folder, "pixels:size=1", tmp_path / "cache")
    assert planned.missing == (0,)
    assert planned.seconds == 0


def test_only_extractors_that_lack_something_are_tried(fill, pictures, tmp_path, counted):
    folder = pictures(4)
    extractor, batches = counted
    fill(folder, extractor)
    assert estimated(folder, [extractor, "pixels:size=1"], tmp_path / "cache").missing == (0, 4)
    assert sum(batches) == 4


def test_seconds_are_those_of_all_missing_samples(pictures, tmp_path, monkeypatch):
    module = sys.modules["featx.engine.estimate"]
    trials = []
    real = module.run
    monkeypatch.setattr(module, "_TRIED", 5)
    monkeypatch.setattr(
        module, "run", lambda *some, **others: trials.append(real(*some, **others)) or trials[0]
    )
    planned = estimated(pictures(50), "glcm", tmp_path / "cache")
    [trial] = trials
    assert len(trial.table) == 5
    assert planned.seconds == trial.extracting_seconds * 10


def test_samples_that_lack_one_extractor_are_not_tried_with_all(fill, pictures, tmp_path, counted):
    folder = pictures(6)
    extractor, batches = counted
    fill([folder / f"{number:03}.png" for number in range(4)], extractor)
    batches.clear()
    assert estimated(folder, [extractor, "pixels:size=1"], tmp_path / "cache").missing == (2, 6)
    assert sum(batches) == 2


def test_an_extractor_under_two_names_is_counted_once(pictures, tmp_path):
    folder = pictures(4)
    assert estimated(folder, ["pixels:size=1", "descriptor/pixels:size=1"], tmp_path / "cache").missing == (
        4,
        0,
    )
