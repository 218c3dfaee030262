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


def begun(lanes=1, stall_seconds=60.0):
    return ForwardThreads(lanes, stall_seconds=stall_seconds, clock=StageClock())


def wait(threads, runtime, inputs):
    return threads.begin(runtime, inputs, batch_name="b")()


@pytest.fixture
def forward():
    threads = begun()
    yield threads
    threads.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_batches_run_side_by_side_in_their_lanes_and_each_gives_its_own(lanes):
    together = threading.Barrier(lanes, timeout=30)
    seen = set()

    def runtime(inputs):
        together.wait()
        seen.add(threading.current_thread())
        return inputs * 2.0

    threads = begun(lanes)
    results = [threads.begin(runtime, np.full(3, number), batch_name="b") for number in range(6)]
    for number, result in reversed(list(enumerate(results))):
        np.testing.assert_array_equal(result(), np.full(3, 2 * number))
    threads.close()
    assert len(seen) == lanes
    assert threading.current_thread() not in seen


def test_what_waits_when_the_threads_are_closed_is_not_begun():
    go_on, ran = threading.Event(), []

    def runtime(inputs):
        ran.append(inputs[0])
        go_on.wait(60)
        return inputs

    threads = begun()
    for number in range(3):
        threads.begin(runtime, np.full(1, number), batch_name="b")
    while not ran:
        time.sleep(0.01)
    threading.Timer(0.3, go_on.set).start()
    threads.close()
    assert ran == [0]


def test_busy_time_is_counted():
    clock = StageClock()
    threads = ForwardThreads(1, stall_seconds=60.0, clock=clock)
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
            ExtractionError, match=r"forward pass of b has taken more than 0\.3 s.*--stall-seconds"
        ):
            wait(threads, lambda inputs: go_on.wait(60), np.ones(2))
        threads.close()
        assert time.monotonic() - started < 10
    finally:
        go_on.set()


def test_closing_waits_for_the_batch_under_way():
    done = []

    def slow(inputs):
        time.sleep(0.5)
        done.append(True)
        return inputs

    threads = begun()
    caller = threading.Thread(target=wait, args=(threads, slow, np.ones(1)))
    caller.start()
    time.sleep(0.1)
    threads.close()
    assert done
    caller.join()


def test_every_batch_has_the_whole_time():
    threads = begun(stall_seconds=2.0)

    def slow(inputs):
        time.sleep(0.9)
        return inputs

    for _ in range(3):
        wait(threads, slow, np.ones(1))
    threads.close()


def test_an_interruption_while_closing_drops_the_batch_under_way(caplog):
    go_on, under_way = threading.Event(), threading.Event()
    threads = begun()

    def hanging(inputs):
        under_way.set()
        go_on.wait(60)
        return inputs

    def interrupt():
        time.sleep(2.5)  # by then it has been said that the batch is waited for
        signal.raise_signal(signal.SIGINT)

    caller = threading.Thread(target=wait, args=(threads, hanging, np.ones(1)))
    caller.start()
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
        caller.join()


def test_a_process_whose_batch_hangs_can_still_exit():
    code = """
import sys, threading
import numpy as np
from featx.engine.forward import ForwardThreads
from featx.engine.stages import StageClock
from featx.errors import FeatxError
try:
    threads = ForwardThreads(1, stall_seconds=0.5, clock=StageClock())
    threads.begin(lambda inputs: threading.Event().wait(), np.ones(2), batch_name="b")()
except FeatxError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("the forward pass of b has taken more than 0.5 s")
