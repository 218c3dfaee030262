import sys
from types import SimpleNamespace

import pytest

from featx.cli import progress, show
from featx.engine import Progress


class Terminal:
    """What a screen writes on, as a terminal."""

    def __init__(self):
        self.written = ""

    def write(self, text):
        self.written += text
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Return what sets the seconds that have passed."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return lambda seconds: setattr(now, "seconds", seconds)


def test_progress_is_a_line_now_and_then_and_at_the_end_where_there_is_no_terminal(capsys, clock):
    with show.Screen(as_json=False).progress() as callback:
        for seconds, done, failed in ((1, 0, 0), (5, 20, 0), (11, 50, 2), (13, 60, 2), (21, 100, 2)):
            clock(seconds)
            callback(Progress(done, 200, failed, work="extracting"))
        clock(26)
        callback(Progress(200, 200, 2, work="extracting"))
        # Another piece of work, of no rate before some seconds of its own; with as much done as the one before.
        for seconds, done in ((30, 200), (32, 240), (50, 300)):
            clock(seconds)
            callback(Progress(done, 800, 0, work="fitting"))
        for seconds, done in ((51, 1), (52, 800)):  # and one too short for a line
            clock(seconds)
            callback(Progress(done, 800, 0, work="fitting"))
        for seconds, done in ((55, 0), (61, 30)):  # of how many is not known
            clock(seconds)
            callback(Progress(done, 0, 0, work="downloading"))
    assert capsys.readouterr().err.splitlines() == [
        "extracting: 50 of 200, 5 images/s, about 30 s left, 2 failed",
        "extracting: 100 of 200, 5 images/s, about 20 s left, 2 failed",
        "extracting: 200 of 200, 8 images/s, 2 failed",
        "fitting: 300 of 800, 5 fits/s, about 100 s left",
        "downloading: 30, 5 MiB/s",
    ]


def test_work_that_has_just_begun_has_no_rate_yet(capsys, clock):
    with show.Screen(as_json=False).progress() as callback:
        clock(9)  # heads were built, and one fit done; how long it took nobody knows
        callback(Progress(1, 100, 0, work="fitting"))
        clock(11)  # and two of a sudden
        callback(Progress(3, 100, 0, work="fitting"))
        clock(49)
        callback(Progress(5, 100, 0, work="fitting"))
        clock(50)
        callback(Progress(100, 100, 0, work="fitting"))
    assert capsys.readouterr().err.splitlines() == [
        "fitting: 3 of 100",
        "fitting: 5 of 100, 0.1 fits/s, about 950 s left",
        "fitting: 100 of 100, 2.4 fits/s",
    ]


def test_quiet_shows_no_progress(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with show.Screen(as_json=False, quiet=True).progress() as callback:
        assert callback is None
    assert sys.stderr.written == ""


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        (Progress(60, 200, 2, work="extracting"), ["extracting", " 60/200", "2 failed"]),
        (Progress(3, 110, 0, work="fitting"), ["fitting", "  3/110"]),
    ],
)
def test_progress_on_a_terminal_is_a_bar_that_follows_the_work(last, shown, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with show.Screen(as_json=False).progress() as callback:
        callback(Progress(50, 200, 2, work="extracting"))
        callback(last)
    assert [part for part in shown if part not in terminal.written] == []
