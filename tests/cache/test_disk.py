import pytest

from featx.cache import disk
from featx.errors import CacheError

STEPS = ["make_folder", "create_file", "write_all", "sync_file", "move_file", "sync_folder"]


class PowerCut(BaseException):
    pass


def test_a_published_file_is_complete_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a" / "b" / "shard.h5"
    disk.publish_bytes(b"x" * 100_000, target, temporary_folder=tmp_path / "a" / "tmp")
    assert target.read_bytes() == b"x" * 100_000
    assert list((tmp_path / "a" / "tmp").iterdir()) == []


@pytest.mark.parametrize("step", STEPS)
def test_an_error_in_any_step_is_clean_and_leaves_no_temporary_file(tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, step, full)
    target = tmp_path / "shards" / "shard.h5"
    with pytest.raises(CacheError, match=r"shard.h5': No space left on device.*run again to resume"):
        disk.publish_bytes(b"content", target, temporary_folder=tmp_path / "tmp")
    assert not target.exists() or (step == "sync_folder" and target.read_bytes() == b"content")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path != target] == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_around_any_step_leaves_the_target_whole_or_absent(tmp_path, monkeypatch, step, after):
    real = getattr(disk, step)

    def cut(*arguments):
        if after:
            result = real(*arguments)
            if step == "create_file":
                result.close()
        elif step == "write_all":
            real(arguments[0], arguments[1][:3])
        raise PowerCut

    monkeypatch.setattr(disk, step, cut)
    monkeypatch.setattr(disk, "remove_file", lambda path: None)  # nobody tidies up after a power cut
    target = tmp_path / "shards" / "shard.h5"
    with pytest.raises(PowerCut):
        disk.publish_bytes(b"content", target, temporary_folder=tmp_path / "tmp")
    assert not target.exists() or target.read_bytes() == b"content"


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_success(tmp_path, monkeypatch):
    order = []
    for step in ("sync_file", "move_file", "sync_folder"):
        real = getattr(disk, step)
        monkeypatch.setattr(disk, step, lambda *a, real=real, step=step: (order.append(step), real(*a)))
    (tmp_path / "tmp").mkdir()
    disk.publish_bytes(b"content", tmp_path / "shard.h5", temporary_folder=tmp_path / "tmp")
    assert order == ["sync_file", "move_file", "sync_folder"]


def test_every_new_folder_is_made_durable_in_its_parent(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk, "sync_folder", synced.append)
    disk.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_partial_writes_of_the_system_are_continued(tmp_path):
    class Slow:
        def __init__(self):
            self.taken = b""

        def write(self, view):
            self.taken += bytes(view[:7])
            return min(7, len(view))

    slow = Slow()
    disk.write_all(slow, b"0123456789" * 5)
    assert slow.taken == b"0123456789" * 5


def test_a_read_only_folder_is_a_clean_error(shared_folder, as_another_user):
    shared_folder.chmod(0o555)
    with as_another_user(), pytest.raises(CacheError, match="Permission denied"):
        disk.publish_bytes(
            b"content", shared_folder / "a" / "shard.h5", temporary_folder=shared_folder / "tmp"
        )
