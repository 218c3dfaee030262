"""What tests of the engine share: one way to run, and ways to see what a run did."""

import pytest

from featx.engine import Settings, read_extractors, run
from featx.samples import SampleTable, read_samples


@pytest.fixture
def fill(tmp_path):
    """Run extractors over samples, into one cache."""

    def filled(
        data, extractors="pixels:size=1", *, cache="cache", take_turns=False, progress=None, **settings
    ):
        return run(
            read_samples(data),
            read_extractors(extractors),
            cache=tmp_path / cache if isinstance(cache, str) else cache,
            settings=Settings(**{"device": "cpu", "precision": "float32", "on_error": "record"} | settings),
            take_turns=take_turns,
            progress=progress,
        )

    return filled


@pytest.fixture
def trusted_at_once(monkeypatch):
    """Let files be remembered that were written a moment ago."""
    monkeypatch.setattr("featx.cache.hints._RACY_SECONDS", -1.0)


@pytest.fixture
def reads(monkeypatch):
    """Return the list of rows that are read, as it grows."""
    rows = []
    real = SampleTable.read_with_stat
    monkeypatch.setattr(
        SampleTable, "read_with_stat", lambda table, row: rows.append(row) or real(table, row)
    )
    return rows


@pytest.fixture
def decodings(monkeypatch):
    """Return the list of samples that are decoded, as it grows."""
    from featx.engine import stages

    raws = []
    real = stages.decode
    monkeypatch.setattr(stages, "decode", lambda raw: raws.append(raw) or real(raw))
    return raws


@pytest.fixture
def no_extractor_is_built(monkeypatch):
    """Fail the test when an extractor is built."""

    def called(*arguments, **keywords):
        raise AssertionError("an extractor was built")

    monkeypatch.setattr("featx.engine.station.load", called)


@pytest.fixture
def counts():
    """Return cached, extracted and failed samples of a run: in all, and by extractor."""

    def counted(done):
        total = (done.cached, done.extracted, len(done.failures))
        return total, [(one.cached, one.extracted, one.failed) for one in done.outcomes]

    return counted
