import itertools
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from featx.engine.stages import StageClock, prepare_rows
from featx.errors import ExtractionError
from featx.samples import decode, read_samples


class Waiting:
    """A data set whose item `stuck` comes only when it is told to."""

    def __init__(self, n_items, stuck=None):
        self.n_items = n_items
        self.stuck = stuck
        self.go_on = threading.Event()
        self.begun = []

    def __len__(self):
        return self.n_items

    def __getitem__(self, index):
        self.begun.append(index)
        if index == self.stuck and len(self.begun) > 1:  # the first look is that of read_samples
            self.go_on.wait(60)
        return np.full((2, 2, 3), index, np.uint8)


def prepared(items, *, workers=2, ahead=4, stall_seconds=60.0):
    table = read_samples(items)
    return prepare_rows(
        table,
        range(len(table)),
        (),
        workers=workers,
        ahead=ahead,
        stall_seconds=stall_seconds,
        clock=StageClock(),
    )


def test_every_row_comes_once():
    rows = [one.row for one in prepared(Waiting(50), workers=3)]
    assert sorted(rows) == list(range(50))


def test_threads_take_rows_of_a_list_that_is_slow_to_come_one_at_a_time():
    def rows():
        for row in range(20):
            time.sleep(0.01)
            yield row

    stream = prepare_rows(
        read_samples(Waiting(20)), rows(), (), workers=4, ahead=4, stall_seconds=60.0, clock=StageClock()
    )
    assert sorted(one.row for one in stream) == list(range(20))


def test_few_rows_wait_for_the_caller():
    items = Waiting(200)
    with closing(prepared(items, workers=2, ahead=4)) as rows:
        next(rows)
        time.sleep(0.5)
        # Handed over, ready, in the workers' hands, and the look of read_samples at the first.
        assert len(items.begun) <= 1 + 4 + 2 + 1


def test_closing_ends_the_threads():
    before = threading.active_count()
    with closing(prepared(Waiting(200), workers=3)) as rows:
        assert len(list(itertools.islice(rows, 5))) == 5
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_sample_that_stalls_ends_the_run_and_is_named():
    items = Waiting(20, stuck=3)
    started = time.monotonic()
    try:
        with pytest.raises(
            ExtractionError, match=r"reading 'memory:3' has taken more than 0\.3 s.*--stall-seconds"
        ):
            list(prepared(items, stall_seconds=0.3))
        assert time.monotonic() - started < 10
    finally:
        items.go_on.set()


def test_a_stall_is_noticed_while_other_rows_go_on():
    items = Waiting(2000, stuck=3)

    def consume():
        for _ in prepared(items, ahead=200, stall_seconds=2.0):
            time.sleep(0.005)  # so that rows are always ready

    try:
        with pytest.raises(ExtractionError, match="'memory:3'"):
            consume()
        assert len(items.begun) < 2000
    finally:
        items.go_on.set()


def test_decoding_that_stalls_ends_the_run_names_the_sample_and_keeps_the_others(fill, pictures, monkeypatch):
    folder, go_on = pictures(12), threading.Event()
    stuck = (folder / "009.png").read_bytes()

    def hanging(raw):
        if raw == stuck:
            go_on.wait(60)
        return decode(raw)

    monkeypatch.setattr("featx.engine.stages.decode", hanging)
    started = time.monotonic()
    try:
        with pytest.raises(ExtractionError, match=r"009\.png' has taken more than 2 s.*--stall-seconds"):
            fill(folder, workers=2, batch_size=1, stall_seconds=2.0)
        assert time.monotonic() - started < 30
    finally:
        go_on.set()
    done = fill(folder)
    assert (done.cached, done.extracted) == (11, 1)


def test_a_caller_that_takes_its_time_is_no_stall():
    rows = []
    for one in prepared(Waiting(12), ahead=2, stall_seconds=3.0):
        rows.append(one.row)
        if len(rows) == 3:
            time.sleep(3.5)
    assert sorted(rows) == list(range(12))


def test_an_error_of_a_worker_reaches_the_caller(monkeypatch):
    def broken(raw):
        raise MemoryError("too large")

    monkeypatch.setattr("featx.engine.stages.key_of", broken)
    with pytest.raises(MemoryError, match="too large"):
        list(prepared(Waiting(5)))


def test_a_process_whose_sample_stalls_can_still_exit():
    code = """
import sys, threading
import numpy as np
import featx
class Items:
    def __len__(self):
        return 9
    def __getitem__(self, index):
        if index == 5:
            threading.Event().wait()
        return np.full((4, 4, 3), index, np.uint8)
try:
    featx.extract(Items(), "pixels:size=1", stall_seconds=0.5, workers=2)
except featx.FeatxError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("reading 'memory:5' has taken more than 0.5 s")


def test_what_the_list_of_rows_raises_reaches_the_caller():
    def rows():
        yield 0
        raise ZeroDivisionError

    table = read_samples(Waiting(5))
    stream = prepare_rows(table, rows(), (), workers=2, ahead=4, stall_seconds=60.0, clock=StageClock())
    with pytest.raises(ZeroDivisionError):
        list(stream)
