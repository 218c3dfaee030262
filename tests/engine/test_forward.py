import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from featx.engine.forward import ForwardThreads
from featx.engine.stages import StageClock
from featx.errors import ExtractionError


def doubled(inputs):
    return inputs * 2.0


class Lanes:
    """A runtime of the test's own."""

    def __init__(self, run, *, name="torch", lanes=1, most=None):
        self.run, self.name, self.lanes, self.most = run, name, lanes, most

    def __call__(self, pixels):
        return self.run(pixels)


def named(start, stop):
    return f"b[{start}:{stop}]"


def begun(*runtimes, stall_seconds=60.0, clock=None):
    return ForwardThreads(
        runtimes or [Lanes(doubled)], stall_seconds=stall_seconds, clock=clock or StageClock()
    )


def wait(threads, run, inputs):
    return threads.wait(threads.begin(Lanes(run), inputs, part_name=named))


@pytest.fixture
def forward():
    threads = begun()
    yield threads
    threads.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_batches_run_side_by_side_in_their_lanes_and_each_gives_its_own(lanes):
    together = threading.Barrier(lanes, timeout=60)
    seen = set()

    def run(inputs):
        together.wait()
        seen.add(threading.current_thread())
        return inputs * 2.0

    runtime = Lanes(run, lanes=lanes)
    threads = begun(runtime)
    batches = [threads.begin(runtime, np.full(3, number), part_name=named) for number in range(6)]
    for number, batch in reversed(list(enumerate(batches))):
        np.testing.assert_array_equal(threads.wait(batch), np.full(3, 2 * number))
    threads.close()
    assert len(seen) == threads.n_threads == lanes
    assert threading.current_thread() not in seen


def test_no_runtime_has_more_batches_at_once_than_lanes_beside_one_that_has_more():
    at_once, most, lock = [0], [0], threading.Lock()
    together = threading.Barrier(2, timeout=60)

    def alone(inputs):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        with lock:
            at_once[0] -= 1
        return inputs

    def paired(inputs):
        together.wait()
        return inputs

    first, second = Lanes(alone), Lanes(alone)  # two networks that one runtime runs
    wide = Lanes(paired, name="openvino", lanes=2)
    threads = begun(first, second, wide)
    batches = [
        threads.begin(runtime, np.ones(1), part_name=named)
        for _ in range(4)
        for runtime in (first, second, wide)
    ]
    for batch in batches:
        threads.wait(batch)
    threads.close()
    assert most == [1]


def test_a_batch_is_run_in_parts_by_all_lanes_and_the_next_one_is_not_begun_before():
    together = threading.Barrier(2, timeout=60)
    ran, lock = [], threading.Lock()

    def run(inputs):
        with lock:
            ran.append(inputs.tolist())
        together.wait()
        return inputs[:, None] * 2.0

    runtime = Lanes(run, lanes=2, most=2)
    threads = begun(runtime)
    batches = [threads.begin(runtime, np.arange(7) + start, part_name=named) for start in (0, 10)]
    for start, batch in zip((0, 10), batches, strict=True):
        assert threads.wait(batch).tolist() == [[2 * (start + one)] for one in range(7)]
    threads.close()
    pairs = [sorted(ran[begin : begin + 2]) for begin in range(0, 8, 2)]
    assert pairs == [[[0, 1], [2, 3]], [[4, 5], [6]], [[10, 11], [12, 13]], [[14, 15], [16]]]


def test_of_a_batch_of_which_one_part_fails_the_rest_is_not_run_and_what_was_computed_is_there():
    ran = []

    def run(inputs):
        ran.append(inputs.tolist())
        if 2 in inputs:
            raise MemoryError("of the device")
        return inputs

    runtime = Lanes(run, most=2)
    threads = begun(runtime)
    batch, after = (threads.begin(runtime, np.arange(6) + start, part_name=named) for start in (0, 10))
    with pytest.raises(MemoryError, match="of the device"):
        threads.wait(batch)
    assert threads.wait(after).tolist() == list(range(10, 16))
    threads.close()
    assert [features.tolist() for _, features in batch.computed()] == [[0, 1]]
    assert ran == [[0, 1], [2, 3], [10, 11], [12, 13], [14, 15]]


def test_what_is_under_way_when_the_threads_are_closed_is_kept_and_what_waits_is_not_begun():
    go_on, under_way, ran = threading.Event(), threading.Event(), []

    def run(inputs):
        ran.append(inputs.tolist())
        under_way.set()
        go_on.wait(60)
        return inputs

    runtime = Lanes(run, most=2)
    threads = begun(runtime)
    first, second = (threads.begin(runtime, np.arange(6) + start, part_name=named) for start in (0, 10))
    under_way.wait()
    closing = threading.Thread(target=threads.close)
    closing.start()
    with pytest.raises(ExtractionError, match=r"b\[0:2\] was dropped, as the run has ended"):
        threads.wait(second)  # the threads are closed by now, and the first part is still under way
    go_on.set()
    closing.join()
    assert ran == [[0, 1]]
    assert [(rows, features.tolist()) for rows, features in first.computed()] == [(slice(0, 2), [0, 1])]
    with pytest.raises(ExtractionError, match="was dropped"):
        threads.wait(first)


def test_busy_time_is_counted():
    clock = StageClock()
    threads = begun(clock=clock)
    wait(threads, lambda inputs: time.sleep(0.2) or inputs, np.ones(1))
    threads.close()
    assert clock.seconds["forward"] >= 0.2


def test_what_the_runtime_raises_reaches_the_caller_and_the_next_batch_runs(forward):
    def broken(inputs):
        raise MemoryError("of the device")

    with pytest.raises(MemoryError, match="of the device"):
        wait(forward, broken, np.ones(2))
    assert wait(forward, doubled, np.ones(2)).tolist() == [2, 2]


def test_a_batch_that_hangs_is_an_error_and_closing_does_not_wait_for_it():
    go_on = threading.Event()
    threads = begun(stall_seconds=0.3)
    started = time.monotonic()
    try:
        with pytest.raises(
            ExtractionError, match=r"forward pass of b\[0:2\] has taken more than 0\.3 s.*--stall-seconds"
        ):
            wait(threads, lambda inputs: go_on.wait(60), np.ones(2))
        threads.close()
        assert time.monotonic() - started < 10
    finally:
        go_on.set()


def test_closing_waits_for_the_batch_under_way():
    under_way, done = threading.Event(), []

    def slow(inputs):
        under_way.set()
        time.sleep(0.5)
        done.append(True)
        return inputs

    threads = begun()
    batch = threads.begin(Lanes(slow), np.ones(1), part_name=named)
    under_way.wait()
    threads.close()
    assert done
    assert threads.wait(batch).tolist() == [1]


def test_every_batch_has_the_whole_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("featx.engine.forward.time.monotonic", lambda: now[0])
    threads = begun(stall_seconds=2.0)

    def slow(inputs):
        now[0] += 1.5
        return inputs

    for _ in range(3):
        wait(threads, slow, np.ones(1))
    threads.close()
    assert now == [4.5]


def test_an_interruption_while_closing_drops_the_batch_under_way(caplog):
    go_on, under_way = threading.Event(), threading.Event()
    threads = begun()

    def hanging(inputs):
        under_way.set()
        go_on.wait(60)
        return inputs

    def interrupt():
        while "interrupt again to drop it" not in caplog.text:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threads.begin(Lanes(hanging), np.ones(1), part_name=named)
    under_way.wait()
    started = time.monotonic()
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.close()
        assert time.monotonic() - started < 30
        assert "interrupt again to drop it" in caplog.text
    finally:
        go_on.set()


def test_a_process_whose_batch_hangs_can_still_exit():
    code = """
import sys, threading
import numpy as np
from featx.engine.forward import ForwardThreads
from featx.engine.stages import StageClock
from featx.errors import FeatxError

class Hanging:
    name, lanes, most = "torch", 1, None
    def __call__(self, pixels):
        threading.Event().wait()

threads = ForwardThreads([Hanging()], stall_seconds=0.5, clock=StageClock())
try:
    threads.wait(threads.begin(Hanging(), np.ones(2), part_name=lambda start, stop: "b"))
except FeatxError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("the forward pass of b has taken more than 0.5 s")
