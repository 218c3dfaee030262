import dataclasses

import pytest

from featx.engine import Settings, SettingsKeywords
from featx.errors import UsageError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"device": "gpu"},
            r"device: expected auto, cpu, mps, cuda, cuda:N, or several as cuda:0,cuda:1, got 'gpu'",
        ),
        ({"device": "cuda:"}, "device: expected auto"),
        ({"runtime": "jax"}, "runtime: expected one of auto, torch, compile, openvino, got 'jax'"),
        ({"precision": "half"}, "precision: expected one of auto, float32, float16, bfloat16, got 'half'"),
        ({"on_error": "ignore"}, "on_error: expected one of raise, record, got 'ignore'"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1 to 65536, got 0"),
        ({"workers": 1.5}, r"workers: expected a whole number from 1 to 1024, got 1\.5"),
        ({"max_error_rate": 2.0}, "max_error_rate: expected a share from 0 to 1"),
        ({"max_error_rate": float("nan")}, "max_error_rate: expected a share from 0 to 1"),
        ({"stall_seconds": 0}, "stall_seconds: expected a positive number"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_the_choices(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("batchsize", r"there is no option 'batchsize'\. Did you mean 'batch_size'\?"),
        (
            "zebra",
            r"there is no option 'zebra'\. Options: device, runtime, precision, batch_size, workers, on_error",
        ),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings.of({wrong: 3})
    assert Settings.of({"workers": 3}) == Settings(workers=3)


def test_the_keywords_are_the_fields():
    assert list(SettingsKeywords.__annotations__) == [field.name for field in dataclasses.fields(Settings)]


def test_as_many_threads_decode_as_the_process_may_use_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert Settings().n_workers == 3
    assert Settings(workers=2).n_workers == 2
