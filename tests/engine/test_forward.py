import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from featx.engine.forward import ForwardThread
from featx.errors import ExtractionError


def doubled(inputs):
    return inputs * 2.0


@pytest.fixture
def forward():
    thread = ForwardThread(stall_seconds=60.0)
    yield thread
    thread.close()


def test_batches_come_back_in_turn_from_one_thread(forward):
    threads = set()

    def runtime(inputs):
        threads.add(threading.current_thread())
        return inputs * 2.0

    for number in range(5):
        np.testing.assert_array_equal(
            forward(runtime, np.full(3, number), batch_name="b"), np.full(3, 2 * number)
        )
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_what_the_runtime_raises_reaches_the_caller_and_the_next_batch_runs(forward):
    def broken(inputs):
        raise MemoryError("of the device")

    with pytest.raises(MemoryError, match="of the device"):
        forward(broken, np.ones(2), batch_name="b")
    assert forward(doubled, np.ones(2), batch_name="b").tolist() == [2, 2]


def test_a_batch_that_hangs_is_an_error_and_closing_does_not_wait_for_it():
    go_on = threading.Event()
    thread = ForwardThread(stall_seconds=0.3)
    started = time.monotonic()
    try:
        with pytest.raises(
            ExtractionError, match=r"forward pass of b has taken more than 0\.3 s.*--stall-seconds"
        ):
            thread(lambda inputs: go_on.wait(60), np.ones(2), batch_name="b")
        thread.close()
        assert time.monotonic() - started < 10
    finally:
        go_on.set()


def test_closing_waits_for_the_batch_under_way():
    done = []

    def slow(inputs):
        time.sleep(0.5)
        done.append(True)
        return inputs

    thread = ForwardThread(stall_seconds=60.0)
    caller = threading.Thread(target=thread, args=(slow, np.ones(1)), kwargs={"batch_name": "b"})
    caller.start()
    time.sleep(0.1)
    thread.close()
    assert done
    caller.join()


def test_every_batch_has_the_whole_time():
    thread = ForwardThread(stall_seconds=2.0)

    def slow(inputs):
        time.sleep(0.9)
        return inputs

    for _ in range(3):
        thread(slow, np.ones(1), batch_name="b")
    thread.close()


def test_an_interruption_while_closing_drops_the_batch_under_way(caplog):
    go_on, begun = threading.Event(), threading.Event()
    thread = ForwardThread(stall_seconds=60.0)

    def hanging(inputs):
        begun.set()
        go_on.wait(60)
        return inputs

    def interrupt():
        time.sleep(2.5)  # by then it has been said that the batch is waited for
        signal.raise_signal(signal.SIGINT)

    caller = threading.Thread(target=thread, args=(hanging, np.ones(1)), kwargs={"batch_name": "b"})
    caller.start()
    begun.wait()
    started = time.monotonic()
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.close()
        assert time.monotonic() - started < 30
        assert "interrupt again to drop it" in caplog.text
    finally:
        go_on.set()
        caller.join()


def test_a_process_whose_batch_hangs_can_still_exit():
    code = """
import sys, threading
import numpy as np
from featx.engine.forward import ForwardThread
from featx.errors import FeatxError
try:
    ForwardThread(stall_seconds=0.5)(lambda inputs: threading.Event().wait(), np.ones(2), batch_name="b")
except FeatxError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("the forward pass of b has taken more than 0.5 s")
