from pathlib import Path

import pytest

from featx.cli import options
from featx.errors import UsageError


@pytest.mark.parametrize("jobs", [0, -2])
def test_processes_are_counted_from_1_or_are_one_per_core(jobs):
    assert (options.processes(1), options.processes(-1)) == (1, -1)
    with pytest.raises(UsageError, match=f"--jobs: expected -1 for one per core, or .* from 1, got {jobs}"):
        options.processes(jobs)


@pytest.mark.parametrize("set_to", [None, ""])
def test_the_cache_is_the_one_named_else_that_of_the_environment_else_a_folder_here(monkeypatch, set_to):
    monkeypatch.setenv("FEATX_CACHE", "set")
    assert options.named_cache(Path("named")) == Path("named")
    assert options.named_cache(None) == Path("set")
    if set_to is None:
        monkeypatch.delenv("FEATX_CACHE")
    else:
        monkeypatch.setenv("FEATX_CACHE", set_to)
    assert options.named_cache(None) == Path("cache")


def test_a_file_may_be_written_that_is_new_or_empty_or_of_its_kind_and_checking_leaves_it(tmp_path):
    out = tmp_path / "m.featx"
    options.check_out(None, begins=b"PK", suffix=".featx")
    options.check_out(out, begins=b"PK", suffix=".featx")
    assert not out.exists()
    for content in (b"", b"PK\x03\x04 and more"):
        out.write_bytes(content)
        options.check_out(out, begins=b"PK", suffix=".featx")
        assert out.read_bytes() == content
    options.check_out(tmp_path / "m.v2", begins=b"PK", suffix=".featx")
    with pytest.raises(
        UsageError, match=r"expected a name that ends in .featx, got .pkl, .* Name it 'm.featx'"
    ):
        options.check_out(tmp_path / "m.pkl", begins=b"PK", suffix=".featx")
    out.write_bytes(b"P")
    with pytest.raises(UsageError, match="is there, and is no file that this command wrote"):
        options.check_out(out, begins=b"PK", suffix=".featx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.featx"]
