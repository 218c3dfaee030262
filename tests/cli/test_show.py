import sys
from types import SimpleNamespace

import pytest

from featx.cli import show
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


def test_a_value_that_json_does_not_have_is_refused_and_not_written(capsys):
    with pytest.raises(ValueError, match="not JSON compliant"):
        show.Screen(as_json=True).result({"accuracy": float("nan")}, "")
    assert capsys.readouterr().out == ""


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
    seconds = iter([0.0, 4.0, 10.0, 12.0, 20.0, 20.0, 31.0])
    monkeypatch.setattr(show, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with show.Screen(as_json=False).progress() as callback:
        for done, failed in ((20, 0), (50, 2), (60, 2), (100, 2)):
            callback(Progress(done, 200, failed, work="extracting"))
        for done in (0, 55):  # another piece of work, timed from its own beginning
            callback(Progress(done, 110, 0, work="fitting"))
    assert capsys.readouterr().err.splitlines() == [
        "extracting: 50 of 200, 5 images/s, about 30 s left, 2 failed",
        "extracting: 100 of 200, 5 images/s, about 20 s left, 2 failed",
        "fitting: 55 of 110, 5 fits/s, about 11 s left",
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
