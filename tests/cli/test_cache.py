import json

import h5py
import pytest

from featx.errors import CacheError, UsageError


@pytest.fixture
def shard(command, photos, tmp_path):
    command("extract", photos, "-x", "pixels")
    (path,) = (tmp_path / "cache").rglob("shards/*.h5")
    return path


def test_list_shows_what_the_cache_holds(command, shard):
    (one,) = command("cache", "list")["extractors"]
    assert (one["extractor"], one["vectors"], one["shards"], one["n_features"]) == ("pixels", 20, 1, 768)
    assert one["size_bytes"] >= shard.stat().st_size
    assert one["precision"] == "float32"


def test_extractors_that_differ_in_precision_are_told_apart(command, text, photos):
    for precision in ("float32", "bfloat16"):
        arguments = ["-x", "nano:size=64", "--device", "cpu", "--precision", precision]
        command("extract", photos, *arguments, "-q")
    listed = text("cache", "list").out.splitlines()
    assert sorted(line.split()[2] for line in listed[1:]) == ["bfloat16", "float32"]
    assert listed[0].split()[:4] == ["extractor", "fingerprint", "precision", "vectors"]


@pytest.mark.parametrize("given", ["the default that is not there yet", "an empty folder"])
def test_an_empty_cache_is_clean_and_lists_nothing(given, command, tmp_path, monkeypatch):
    if given == "an empty folder":
        (tmp_path / "cache").mkdir()
    else:
        monkeypatch.delenv("FEATX_CACHE")
    assert command("cache", "list")["extractors"] == []
    assert command("cache", "verify")["clean"] is True
    assert command("cache", "prune")["merged"] == 0


def test_one_of_a_thing_and_none_of_it_are_said_so(text, shard, photos):
    assert text("cache", "verify").out == "clean: 1 shard with 20 rows of 1 extractor checked\n"
    assert text("cache", "prune").out == "nothing to merge, freed 0 B by removing\n"
    shown = text("extract", photos / "red" / "0.png", "-x", "pixels").out
    assert shown.startswith("pixels: 1 sample, 1 cached, 0 extracted, 0 failed, 768 features each")


def test_a_folder_that_is_no_cache_is_not_called_a_clean_one(command, text, photos):
    assert text("cache", "verify", "--cache", photos).out == f"nothing of featx in '{photos}'\n"
    assert text("cache", "list", "--cache", photos).out == f"nothing in '{photos}'\n"
    assert command("cache", "verify", "--cache", photos)["clean"] is True


def test_a_cache_that_the_environment_names_has_to_be_there(text, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", "nowhere")
    with pytest.raises(UsageError, match="there is no cache 'nowhere'"):
        text("cache", "verify")


def test_verify_finds_a_flipped_byte_and_repair_makes_it_be_computed_again(
    command, text, shard, photos, capsys
):
    assert command("cache", "verify")["clean"] is True
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=r"1 file\. Run it with --repair to drop them\."):
        text("cache", "verify")
    shown = capsys.readouterr()
    assert shown.out == "1 broken: 0 shards with 0 rows of 1 extractor checked\n"
    assert shown.err.startswith(f"broken: shard '{shard}' ")
    with pytest.raises(CacheError, match="--repair to drop"):
        text("cache", "verify", "--json", "-q")
    assert json.loads(capsys.readouterr().out)["clean"] is False
    with pytest.raises(CacheError, match=shard.name[:12]):
        text("extract", photos, "-x", "pixels")
    assert command("cache", "verify", "--repair")["problems"][0]["removed"] is True
    assert command("cache", "verify")["clean"] is True
    assert command("extract", photos, "-x", "pixels")["extracted"] == 20


def test_prune_merges_small_shards(command, text, photos, tmp_path):
    command("extract", photos / "red", "-x", "pixels")
    command("extract", photos / "blue", "-x", "pixels")
    assert command("cache", "prune", "--dry-run")["merged"] == 2
    assert text("cache", "prune", "--dry-run").out.startswith("would merge 2 shards into 1, would free ")
    assert text("cache", "prune").out.startswith("merged 2 shards into 1, freed ")
    assert len(list((tmp_path / "cache").rglob("shards/*.h5"))) == 1
    assert command("extract", photos, "-x", "pixels")["extracted"] == 0


def test_export_writes_what_is_there_and_computes_nothing(command, text, photos, shard, tmp_path):
    done = command("cache", "export", photos, "-x", "pixels", "--out", "f.h5")
    assert (done["samples"], done["n_features"]) == (20, 768)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["features"].shape == (20, 768)
    shard.unlink()
    with pytest.raises(CacheError, match="20 of 20 samples have no vector"):
        text("cache", "export", photos, "-x", "pixels", "--out", "g.h5")
    assert not (tmp_path / "g.h5").exists()


def test_export_takes_the_place_of_another_export_only(command, text, photos, shard, tmp_path):
    arguments = ["cache", "export", photos, "-x", "pixels", "--out"]
    for _ in range(2):
        assert command(*arguments, "f.h5")["samples"] == 20
    before = (photos / "red" / "0.png").read_bytes()
    with pytest.raises(UsageError, match="is there, and is no file that this command wrote"):
        text(*arguments, "photos/red/0.png")
    assert (photos / "red" / "0.png").read_bytes() == before


def test_export_tells_a_person_what_it_wrote_and_what_failed(text, photos, shard, tmp_path):
    arguments = ["cache", "export", photos, "-x", "pixels", "--out", "f.h5"]
    assert text(*arguments).out == "wrote 20 x 768 features to f.h5\n"
    (photos / "red" / "gone.png").symlink_to("nowhere")
    assert text(*arguments).out == "wrote 20 x 768 features to f.h5; 1 sample failed\n"


def test_what_is_no_shard_is_told_and_not_deleted(text, shard):
    spec = shard.parent.parent / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"schema": 9}))
    with pytest.raises(CacheError, match=r"1 file\. What is left is no shard, and is not deleted\."):
        text("cache", "verify", "--repair")
    assert spec.exists()


def test_what_is_not_the_cache_s_own_is_noted(text, command, shard, tmp_path):
    (tmp_path / "cache" / "mine.txt").touch()
    assert "note: '" in text("cache", "verify").err
    assert "mine.txt' is not the cache's: ignored." in command("cache", "verify")["notes"][0]


def test_a_broken_shard_is_named_in_the_list(text, command, shard):
    shard.write_bytes(b"broken")
    assert text("cache", "list").err.startswith(f"problem: shard '{shard}' ")
    assert str(shard) in command("cache", "list")["extractors"][0]["problem"]


def test_prune_says_first_what_it_would_do(text, shard, photos):
    shard.write_bytes(b"broken")
    shown = text("cache", "prune", "--dry-run")
    assert shown.err.splitlines()[0] == f"would remove {shard}"
    assert shown.out == "nothing to merge, would free 6 B by removing\n"
    assert shard.exists()
    shown = text("cache", "prune")
    assert shown.err.splitlines()[0] == f"removed {shard}"
    assert shown.out == "nothing to merge, freed 6 B by removing\n"
    assert not shard.exists()


def test_extractors_that_nothing_was_published_for_are_pruned_when_asked(command, shard):
    assert command("cache", "prune", "--older-than", "1")["removed"] == []
    assert command("cache", "prune", "--older-than", "0")["removed"] == [str(shard.parent.parent)]
    assert command("cache", "list")["extractors"] == []


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_days_are_a_number_from_0(days, text, shard):
    with pytest.raises(UsageError, match=rf"--older-than: expected a number of days from 0, got {days}"):
        text("cache", "prune", "--older-than", days)


def test_caches_merge_by_copying_shards(command, photos, tmp_path):
    command("extract", photos / "red", "-x", "pixels", "--cache", tmp_path / "a")
    command("extract", photos / "blue", "-x", "pixels", "--cache", tmp_path / "b")
    (folder,) = (path for path in (tmp_path / "a").iterdir() if path.is_dir())
    for path in (tmp_path / "b").rglob("shards/*.h5"):
        (folder / "shards" / path.name).write_bytes(path.read_bytes())
    assert command("extract", photos, "-x", "pixels", "--cache", tmp_path / "a")["extracted"] == 0


def test_export_leaves_out_what_cannot_be_read(command, photos, shard, tmp_path):
    (photos / "red" / "gone.png").symlink_to("nowhere")
    done = command("cache", "export", photos, "-x", "pixels", "--out", "f.h5")
    assert (done["samples"], done["failed"]) == (20, 1)
