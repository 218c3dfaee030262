from types import SimpleNamespace

import numpy as np
import pytest

from featx.cache import Store, fingerprint_of
from featx.engine.station import Station

IDENTITY = {"name": "mean"}


@pytest.fixture
def station():
    store = Store(
        None,
        identity=IDENTITY,
        fingerprint=fingerprint_of(IDENTITY),
        n_features=1,
        dtype=np.float32,
        decoder="policy 1",
    )
    return lambda runtime=None: Station(SimpleNamespace(), store, runtime)


def runtime(name, *, most=None, lanes=1):
    return SimpleNamespace(name=name, most=most, lanes=lanes)


@pytest.mark.parametrize(
    ("of", "batch_size", "expected"),
    [
        (None, 32, 4),
        (None, 3, 1),
        (runtime("torch"), 128, 16),
        (runtime("compile"), 32, 32),  # compiled for this size: a smaller one costs as much
        (runtime("openvino", most=4, lanes=2), 32, 8),
        (runtime("openvino", most=4, lanes=16), 32, 32),
    ],
)
def test_the_first_of_many_batches_is_small_where_that_is_sooner_done(station, of, batch_size, expected):
    assert station(of).first_batch(batch_size) == expected


def test_a_key_is_one_callers_to_compute_until_it_is_released(station):
    one = station()
    key = bytes(32)
    assert one.claim(key)
    assert not one.claim(key)
    one.release([key])
    assert one.claim(key)
    one.store.publish(np.frombuffer(key, np.uint8)[None], np.ones((1, 1), np.float32))
    one.release([key])
    assert not one.claim(key)
