import multiprocessing
import threading
import time

import pytest

from featx.cache import turn


def hold(directory, entered, leave):
    with turn(directory):
        entered.set()
        leave.wait(30)


@pytest.fixture(params=["thread", "process"])
def holder(request, tmp_path):
    """Somebody else who has the turn, until told to leave."""
    if request.param == "thread":
        entered, leave = threading.Event(), threading.Event()
        other = threading.Thread(target=hold, args=(tmp_path / "a", entered, leave))
    else:
        context = multiprocessing.get_context("forkserver")
        entered, leave = context.Event(), context.Event()
        other = context.Process(target=hold, args=(tmp_path / "a", entered, leave))
    other.start()
    assert entered.wait(30)
    yield leave
    leave.set()
    other.join()


def test_one_waits_for_the_other(holder, tmp_path):
    came = []

    def come():
        with turn(tmp_path / "a"):
            came.append(time.monotonic())

    thread = threading.Thread(target=come)
    thread.start()
    time.sleep(0.2)
    assert not came
    left = time.monotonic()
    holder.set()
    thread.join(30)
    assert came
    assert came[0] >= left


def test_another_folder_is_not_waited_for(holder, tmp_path):
    with turn(tmp_path / "b"):
        pass


def test_a_turn_comes_to_its_end_with_an_error(tmp_path):
    with pytest.raises(KeyError), turn(tmp_path / "a"):
        raise KeyError
    with turn(tmp_path / "a"):
        pass


def test_what_cannot_be_locked_is_not_waited_for(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with turn(None), turn(None), turn(tmp_path / "file"), turn(tmp_path / "file"):
        pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "turn").symlink_to(tmp_path / "elsewhere")
    with turn(tmp_path / "a"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_the_end_of_a_process_ends_its_turn(tmp_path):
    context = multiprocessing.get_context("forkserver")
    entered, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "a", entered, leave))
    other.start()
    assert entered.wait(30)
    other.kill()
    other.join()
    with turn(tmp_path / "a"):
        pass
