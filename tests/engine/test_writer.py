import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from featx.cache import FAILED, Store, disk
from featx.engine import identify, read_extractors, writer
from featx.engine.stages import StageClock
from featx.engine.station import Station
from featx.errors import CacheError, ExtractionError


@pytest.fixture
def spec():
    [asked] = read_extractors("pixels:size=1")
    hints = SimpleNamespace(identity=lambda text: None, remember_identity=lambda text, identity: None)
    return identify(asked, device="cpu", precision="float32", hints=hints)


@pytest.fixture
def store(spec, tmp_path):
    return Store(
        tmp_path / "store",
        identity=spec.identity,
        fingerprint=spec.fingerprint,
        n_features=3,
        dtype=np.dtype("float32"),
        decoder="decoder 1",
    )


@pytest.fixture
def writing(spec):
    def made(store, stall_seconds=60.0):
        station = Station(SimpleNamespace(spec=spec), store, None)
        return writer.Writer([station], provenance={}, stall_seconds=stall_seconds, clock=StageClock())

    return made


def keys(numbers):
    return [bytes([number]) * 32 for number in numbers]


def rows(numbers):
    return np.array([[number, 0.5, 1.0] for number in numbers], np.float32)


def shards(store):
    return sorted((store.directory / "shards").glob("*.h5"))


def test_vectors_are_served_under_their_keys_after_closing(writing, store):
    at_work = writing(store)
    at_work.write(0, keys(range(5)), rows(range(5)))
    at_work.write(0, keys(range(5, 7)), rows(range(5, 7)))
    at_work.close()
    positions = store.lookup(np.frombuffer(b"".join(keys(range(7))), np.uint8).reshape(-1, 32))
    np.testing.assert_array_equal(store.read(positions), rows(range(7)))
    assert len(shards(store)) == 2


def wait_for_shards(store, count):
    deadline = time.monotonic() + 20
    while len(shards(store)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(shards(store)) == count


def test_the_first_vectors_are_published_at_once_and_later_ones_together(writing, store):
    at_work = writing(store)
    assert at_work.first_published is None
    at_work.write_failure(0, keys([9])[0], "truncated PNG")
    at_work.write(0, keys([1]), rows([1]))
    wait_for_shards(store, 1)
    for number in (2, 3, 4):
        at_work.write(0, keys([number]), rows([number]))
    at_work.close()
    assert len(shards(store)) == 2
    assert at_work.first_published <= time.monotonic()


def test_a_shard_is_published_whenever_enough_rows_are_there(writing, store, monkeypatch):
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 4)
    at_work = writing(store)
    at_work.write(0, keys(range(10)), rows(range(10)))
    at_work.close()
    assert len(shards(store)) == 3
    positions = store.lookup(np.frombuffer(b"".join(keys(range(10))), np.uint8).reshape(-1, 32))
    np.testing.assert_array_equal(store.read(positions), rows(range(10)))


def test_a_shard_is_published_when_its_first_row_has_waited_long_enough(writing, store, monkeypatch):
    monkeypatch.setattr(writer, "PUBLISH_SECONDS", 0.1)
    at_work = writing(store)
    for number in (1, 2):
        at_work.write(0, keys([number]), rows([number]))
        wait_for_shards(store, number)
    at_work.close()


def test_failures_are_published_without_vectors(writing, store):
    at_work = writing(store)
    at_work.write_failure(0, keys([7])[0], "truncated PNG")
    at_work.close()
    assert store.lookup(np.frombuffer(keys([7])[0], np.uint8)[None]).tolist() == [FAILED]
    assert store.reason(keys([7])[0]) == "truncated PNG"


def test_what_goes_wrong_reaches_whoever_writes_or_closes(writing):
    class Full:
        def publish(self, *arguments, **keywords):
            raise CacheError("cannot write 'x': No space left on device")

    at_work = writing(Full())
    at_work.write(0, keys([1]), rows([1]))
    with pytest.raises(CacheError, match="No space left"):
        at_work.close()
    with pytest.raises(CacheError, match="No space left"):
        at_work.write(0, keys([2]), rows([2]))


def test_a_disk_that_hangs_ends_the_run(writing):
    go_on = threading.Event()
    hanging = SimpleNamespace(publish=lambda *arguments, **keywords: go_on.wait(60))
    at_work = writing(hanging, stall_seconds=0.3)
    at_work.write(0, keys([1]), rows([1]))
    try:
        with pytest.raises(
            ExtractionError, match=r"writing to the cache has taken more than 0\.3 s.*--stall-seconds"
        ):
            at_work.close()
    finally:
        go_on.set()


def test_a_disk_that_hangs_ends_the_run_also_when_more_is_handed_over_than_can_wait(writing, monkeypatch):
    monkeypatch.setattr(writer, "PUBLISH_SECONDS", -1.0)  # every row is published when it comes
    go_on = threading.Event()
    hanging = SimpleNamespace(publish=lambda *arguments, **keywords: go_on.wait(20))
    at_work = writing(hanging, stall_seconds=0.3)

    def write():
        for number in range(20):
            at_work.write(0, keys([number]), rows([number]))

    started = time.monotonic()
    try:
        with pytest.raises(ExtractionError, match="writing to the cache has taken more than"):
            write()
        with pytest.raises(ExtractionError, match="writing to the cache has taken more than"):
            at_work.close()
        assert time.monotonic() - started < 15
    finally:
        go_on.set()


def test_a_key_is_claimed_once_until_its_vector_is_there(store):
    station = Station(SimpleNamespace(), store, None)
    key = bytes(32)
    assert station.claim(key)
    assert not station.claim(key)
    store.publish(np.zeros((1, 32), np.uint8), np.ones((1, 3), np.float32), failures=[], provenance={})
    station.release([key])
    assert not station.claim(key)
    assert not station._under_way


def test_what_is_published_is_no_longer_under_way(spec, store):
    station = Station(SimpleNamespace(spec=spec), store, None)
    good, bad = keys([1, 2])
    assert station.claim(good)
    assert station.claim(bad)
    at_work = writer.Writer([station], provenance={}, stall_seconds=60.0, clock=StageClock())
    at_work.write(0, [good], rows([1]))
    at_work.write_failure(0, bad, "broken")
    at_work.close()
    assert not station._under_way
    assert not station.claim(good)
    assert not station.claim(bad)


@pytest.fixture
def interruptions():
    """Take Ctrl-C and SIGTERM as the command line does, and note them as they are taken."""
    taken = []

    def interrupted(number, _frame):
        taken.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    yield taken
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_an_interruption_while_closing_waits_for_the_last_shard(
    writing, store, monkeypatch, interruptions, number, error
):
    real, publishing = store.publish, threading.Event()

    def slow(*arguments, **keywords):
        publishing.set()
        time.sleep(0.5)
        return real(*arguments, **keywords)

    at_work = writing(store)
    at_work.write(0, keys([1]), rows([1]))
    wait_for_shards(store, 1)
    monkeypatch.setattr(store, "publish", slow)
    at_work.write(0, keys([2]), rows([2]))  # waits to be published by close
    # A real signal, taken by the main thread, in the middle of the last publish.
    threading.Thread(target=lambda: (publishing.wait(), signal.raise_signal(number))).start()
    with pytest.raises(error):
        at_work.close()
    assert interruptions == [number]
    assert len(shards(store)) == 2


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_second_interruption_while_closing_ends_it_and_half_publishes_nothing(
    writing, store, monkeypatch, interruptions, number, error
):
    real, publishing, go_on = disk.sync_file, threading.Event(), threading.Event()

    def hanging(file):
        publishing.set()
        go_on.wait(60)
        real(file)

    def interrupt():
        publishing.wait()
        for count in (1, 2):
            signal.raise_signal(number)
            while len(interruptions) < count:
                time.sleep(0.01)

    at_work = writing(store)
    at_work.write(0, keys([1]), rows([1]))
    wait_for_shards(store, 1)
    monkeypatch.setattr(disk, "sync_file", hanging)
    at_work.write(0, keys([2]), rows([2]))  # waits to be published by close
    threading.Thread(target=interrupt, daemon=True).start()
    started = time.monotonic()
    try:
        with pytest.raises(error):
            at_work.close()
        assert time.monotonic() - started < 30
        assert interruptions == [number, number]
        assert len(shards(store)) == 1
    finally:
        go_on.set()
        assert at_work._ended.wait(30)


@pytest.fixture
def writing_to_blocked(spec, store, tmp_path):
    """Return a writer with so many stations that cannot be written to, and behind these one that can."""
    (tmp_path / "blocked").write_text("a file where the folder should be")

    def made(n_blocked):
        stores = []
        for _ in range(n_blocked):
            identity = {"identity": spec.identity, "fingerprint": spec.fingerprint}
            stores.append(Store(None, **identity, n_features=3, dtype="float32", decoder="d"))
            stores[-1].directory = tmp_path / "blocked"
        stations = [Station(SimpleNamespace(spec=spec), place, None) for place in (*stores, store)]
        return writer.Writer(stations, provenance={}, stall_seconds=60.0, clock=StageClock())

    return made


@pytest.mark.parametrize("n_blocked", [1, 2])
def test_extractors_that_cannot_be_written_take_no_other_with_them(writing_to_blocked, store, n_blocked):
    at_work = writing_to_blocked(n_blocked)
    at_work.write(n_blocked, keys([1]), rows([1]))  # published at once
    at_work.write(n_blocked, keys([2]), rows([2]))  # waits for others
    for station in range(n_blocked):
        with suppress(CacheError):  # raised again by close
            at_work.write(station, keys([1]), rows([1]))
    with pytest.raises(CacheError, match="blocked"):
        at_work.close()
    assert len(shards(store)) == 2


def test_an_extractor_that_cannot_be_written_takes_no_vectors_with_it_that_were_still_to_wait(
    writing_to_blocked, store, monkeypatch
):
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 2)
    at_work = writing_to_blocked(1)
    at_work.write(1, keys([1]), rows([1]))  # published at once
    at_work.write(1, keys([2]), rows([2]))  # half a shard
    at_work.write(0, keys([1, 2]), rows([1, 2]))  # a whole one, which is written at once
    with pytest.raises(CacheError, match="blocked"):
        at_work.close()
    assert len(shards(store)) == 2
