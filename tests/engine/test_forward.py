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
