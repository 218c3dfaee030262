"""Several devices in one run; the CPU named twice stands for two of them."""

import logging
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import featx
from featx.engine import devices
from featx.engine.hardware import device_names
from featx.errors import DecodeError, ExtractionError, UsageError, WeightsError

TWO = {"device": "cpu,cpu"}

# Once some rows are done interrupts itself, as Ctrl-C does, or its processes; these take their time over each row.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from featx.engine import Settings, devices, read_extractors, run
from featx.samples import read_samples
devices._COMMAND = devices._COMMAND.replace("main()", '''
import time
import featx.engine.stages as stages
real = stages.decode
def slow(raw):
    time.sleep(0.05)
    return real(raw)
stages.decode = slow
main()''')
children = Path(f"/proc/self/task/{os.getpid()}/children")
signals = [(os.kill, int(sys.argv[3]))]
def told(progress):
    if progress.done >= 24 and signals:
        kill, number = signals.pop()
        own = children.read_text().split()
        for pid in [os.getpid()] if number == signal.SIGINT else map(int, own):
            kill(pid, number)
run(read_samples(sys.argv[1]), read_extractors("pixels:size=1"), cache=Path(sys.argv[2]),
    settings=Settings(device="cpu,cpu", batch_size=4, workers=1), progress=told)
"""


def matrix(done):
    return done.matrix(np.arange(len(done.table)))


def test_two_processes_give_the_rows_of_one_in_their_order(fill, pictures, counts):
    folder = pictures(31)
    told = []
    done = fill(folder, "pixels:size=1+nano:size=32", cache="two", progress=told.append, **TWO)
    assert counts(done) == ((0, 31, 0), [(0, 31, 0), (0, 31, 0)])
    assert done.computed.all()
    assert done.runtimes == ("torch",)
    assert (told[-1].done, told[-1].total) == (31, 31)
    alone = fill(folder, "pixels:size=1+nano:size=32", cache="one")
    np.testing.assert_allclose(matrix(done), matrix(alone), rtol=1e-4, atol=1e-4)
    assert (matrix(done)[:, :3] == matrix(alone)[:, :3]).all()
    again = fill(folder, "pixels:size=1+nano:size=32", cache="two", **TWO)
    assert counts(again) == ((31, 0, 0), [(31, 0, 0), (31, 0, 0)])


def test_more_processes_than_rows_are_not_started(fill, pictures, counts):
    done = fill(pictures(1), cache="two", **TWO)
    assert counts(done)[0] == (0, 1, 0)
    assert done.threads["write"] == 1


def test_broken_samples_are_named_in_their_order(fill, pictures):
    folder = pictures(9)
    for number in (3, 4, 8):
        (folder / f"00{number}.png").write_bytes(b"broken" * number)
    done = fill(folder, max_error_rate=1.0, **TWO)
    assert [failure.id for failure in done.failures] == ["003.png", "004.png", "008.png"]
    assert done.extracted == 6
    with pytest.raises(DecodeError, match=r"sample '003\.png'"):
        fill(folder, cache="other", on_error="raise", **TWO)


class Endless(torch.nn.Module):
    """A network whose vectors are not finite; its class cannot be imported by another process."""

    def forward(self, pixels):
        return pixels.mean(dim=(2, 3)) / 0.0


def test_what_fails_in_a_process_is_raised_here(fill, pictures):
    Endless.__module__ = "__main__"
    extractor = featx.ModuleExtractor(
        Endless(), name="endless", preprocessing=featx.Preprocessing(resize=8, crop=8)
    )
    with pytest.raises(ExtractionError, match="values that are not finite") as caught:
        fill(pictures(4), [extractor], **TWO)
    assert "\n" not in str(caught.value)


def test_what_is_logged_in_a_process_is_logged_here(fill, pictures, caplog, monkeypatch):
    monkeypatch.setattr(
        devices,
        "_COMMAND",
        "import pickle, sys\n"
        "sys.path[:] = pickle.load(sys.stdin.buffer)\n"
        "import logging, featx.engine.devices as devices\n"
        "fill = devices.fill\n"
        "def told(*args, **kwargs):\n"
        "    logging.getLogger('featx.engine').warning('there are %d', 7)\n"
        "    return fill(*args, **kwargs)\n"
        "devices.fill = told\n"
        "devices.main()",
    )
    with caplog.at_level(logging.WARNING, "featx"):
        fill(pictures(4), **TWO)
    assert [record.getMessage() for record in caplog.records] == ["there are 7"] * 2


def test_what_cannot_be_handed_over_is_refused(fill, pictures):
    class Locked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

        def __deepcopy__(self, memo):
            return self

        def forward(self, pixels):
            return pixels.mean(dim=(2, 3))

    preprocessing = featx.Preprocessing(resize=8, crop=8)
    extractor = featx.ModuleExtractor(Locked(), name="locked", preprocessing=preprocessing)
    with pytest.raises(
        UsageError, match=r"cannot be handed to another process \(TypeError: .*lock.*Name one device"
    ):
        fill(pictures(4), [extractor], **TWO)


def test_weights_that_change_between_the_processes_are_noticed(fill, pictures, tmp_path, monkeypatch):
    from torchvision.models import squeezenet1_1

    path, real = tmp_path / "weights.pth", devices._start

    def exchanged(*arguments):
        torch.save(squeezenet1_1().state_dict(), path)
        return real(*arguments)

    torch.save(squeezenet1_1().state_dict(), path)
    monkeypatch.setattr(devices, "_start", exchanged)
    with pytest.raises(WeightsError, match="changed while featx was using them"):
        fill(pictures(2), f"squeezenet1_1:weights={path}:size=64", **TWO)


def test_nothing_of_the_current_folder_is_run(fill, pictures, tmp_path, monkeypatch):
    folder = pictures(2)
    for name in ("pickle", "h5py"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    assert fill(folder, **TWO).extracted == 2


def test_a_process_that_dies_is_told_with_its_device(fill, pictures, monkeypatch):
    monkeypatch.setattr(devices, "_COMMAND", "import os; os._exit(3)")
    with pytest.raises(ExtractionError, match=r"process for cpu ended with status 3 .* run again"):
        fill(pictures(4), **TWO)


def test_vectors_in_memory_cannot_be_shared(fill, pictures):
    with pytest.raises(UsageError, match="share a cache folder; got none"):
        fill(pictures(4), cache=None, **TWO)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_the_run_or_of_its_processes_keeps_what_was_computed(
    fill, pictures, tmp_path, number
):
    folder = pictures(240)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(folder), str(tmp_path / "cache"), str(int(number))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1  # this process's own
    assert done.stderr.splitlines()[-1].startswith(
        "KeyboardInterrupt"
        if number == signal.SIGINT
        else "featx.errors.ExtractionError: the process for cpu ended"
    )
    rest = fill(folder)
    assert 4 < rest.cached < 240  # the first shards alone hold four
    assert rest.cached + rest.extracted == 240


@pytest.mark.parametrize("device", ["cuda,cuda", "cuda:0,cuda:0", "cpu,cuda:0", "auto,cpu", "", "cuda:0,"])
def test_devices_that_make_no_sense_together_are_refused(device):
    with pytest.raises(UsageError, match=r"device: expected auto, .*, or several as cuda:0,cuda:1, got"):
        device_names(device)
