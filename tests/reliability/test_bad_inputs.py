"""One bad input costs one row: the corpus of `corpus.py` through the command line, in a process that is watched."""

import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, ImageOps

made = runpy.run_path(str(Path(__file__).with_name("corpus.py")))
PICTURES = made["good"](seed=0)
CORPUS = made["corpus"](seed=1)

# The command line, with what happens to the data between listing and reading, and with its peak of memory and how
# many files it decoded written down.
FEATX = """
import os, sys
import featx.samples
from featx.cli.main import main
from featx.engine import stages
n_decoded = 0
def counted(decode):
    def count(raw):
        global n_decoded
        n_decoded += 1
        return decode(raw)
    return count
stages.decode, stages.decode_fast = counted(stages.decode), counted(stages.decode_fast)
listed = featx.samples.read_samples
def read_samples(data):
    table = listed(data)
    if str(data) == "data" and os.path.exists("new.png"):
        os.replace("new.png", "data/files/changed.png")
        os.unlink("data/files/deleted.png")
    return table
featx.samples.read_samples = read_samples
try:
    main()
finally:
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(peak, n_decoded, file=open("seen", "w"))
"""
# Root reads everything, unless it gives that up.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

MAX_SECONDS = 100
MAX_GROWTH_KIB = 64 * 1024
"""A picture at the pixel limit would need 256 MiB, a strip of 1 x 5000 resized as a whole more than a GiB."""


def order(one):
    return one.name.split(b"/")


@pytest.fixture
def inputs(tmp_path):
    """Write the corpus among good pictures to the folder ``data``, and return all of it in the order of samples."""
    if AS_ANYBODY and shutil.which("setpriv") is None:
        pytest.skip("root reads every file, and cannot give that up without setpriv")
    inputs = sorted(PICTURES + CORPUS, key=order)
    for one in inputs:
        one.write(tmp_path / "data")
    [changed] = [one for one in inputs if one.kind == "changed during the run"]
    Image.fromarray(changed.shown).save(tmp_path / "new.png")
    return inputs


@pytest.fixture
def featx(tmp_path):
    def run(*arguments, code=0):
        done = subprocess.run(
            [*AS_ANYBODY, sys.executable, "-c", FEATX, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def extract(tmp_path, featx):
    """Extract a folder; return the JSON object, the export's ids, labels and matrix, peak memory, and files decoded."""

    def run(data, extractor, cache="cache"):
        done = featx(
            *("extract", data, "-x", extractor, "--cache", cache, "--export", "f.h5", "--json"),
            *("--on-error", "record", "--max-error-rate", "1", "--precision", "float32", "--device", "cpu"),
            *("--batch-size", "8", "--workers", "2"),
        )
        assert done.stdout.count("\n") == 1
        with h5py.File(tmp_path / "f.h5") as file:
            rows = [file[name].asstr()[:].tolist() for name in ("ids", "labels")] + [file["features"][:]]
        return json.loads(done.stdout), *rows, *map(int, (tmp_path / "seen").read_text().split())

    return run


@pytest.fixture
def extractors(tmp_path):
    """Return, by kind of pixels, an extractor's text and the vectors it owes to pictures, worked out without featx."""
    import torch
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1().eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    transforms = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms(resize_size=110, crop_size=96)

    def downsampled(pictures):
        fitted = [ImageOps.fit(one, (12, 12), Image.Resampling.BILINEAR) for one in pictures]
        return np.array([np.asarray(one).ravel() / np.float32(255) for one in fitted])

    def pooled(pictures):
        with torch.inference_mode():
            return torch.cat(
                [network.features(transforms(one)[None]).mean((2, 3)) for one in pictures]
            ).numpy()

    return {
        "exact": ("pixels:size=12", downsampled),
        "fast": (f"squeezenet1_1:weights={tmp_path / 'w.pth'}:size=96:pixels=fast", pooled),
    }


@pytest.mark.parametrize("pixels", ["exact", "fast"])
def test_one_bad_input_costs_one_row(pixels, inputs, extract, extractors, tmp_path):
    extractor, vectors = extractors[pixels]
    for one in PICTURES:
        one.write(tmp_path / "good pictures")
    *_, least, _ = extract("good pictures", extractor, cache="other")

    done, ids, labels, matrix, peak, n_decoded = extract("data", extractor)

    shown = [one for one in inputs if one.shown is not None]
    refused = [one for one in inputs if one.reason]
    assert done["skipped"] == {"hidden files": 3, "links that lead back up": 1}
    assert len(inputs) - len(shown) - len(refused) == 4
    # What failed is named, in the order of samples, by something that can be printed, and says why.
    assert [failure["id"] for failure in done["failures"]] == [one.id for one in refused]
    for one, failure in zip(refused, done["failures"], strict=True):
        assert re.fullmatch(one.reason, failure["reason"]), (one.kind, failure)
        assert (failure["id"] + failure["reason"]).isprintable()
    # All others have their own vector in their own place.
    assert ids == [one.name.decode("utf-8", "backslashreplace") for one in shown]
    assert labels == [os.fsdecode(one.name).split("/")[0] for one in shown]
    expected = vectors([Image.fromarray(one.shown) for one in shown])
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=0.01 * expected.max())
    # Two names of the same bytes are computed once.
    n_twice = sum(one.kind in ("hard links", "duplicates across classes") for one in shown) // 2
    assert (done["cached"], done["extracted"], done["failed"]) == (
        n_twice,
        len(shown) - n_twice,
        len(refused),
    )
    n_unread = sum("cannot read" in one.reason for one in refused)
    assert n_decoded == len(shown) - n_twice + len(refused) - n_unread
    assert peak - least < MAX_GROWTH_KIB

    again, ids_again, _, matrix_again, _, n_decoded = extract("data", extractor)
    assert (again["extracted"], again["cached"]) == (0, len(shown))
    assert n_decoded == 0
    # The file that was deleted is not listed any more.
    assert again["failures"] == [one for one in done["failures"] if one["id"] != "files/deleted.png"]
    assert ids_again == ids
    np.testing.assert_array_equal(matrix_again, matrix)
    logging.info(
        "%d inputs of %d kinds among %d good pictures: %d rows, %d failures, %d left out; %d MiB more memory",
        *(len(CORPUS), len(Counter(one.kind for one in CORPUS)), len(PICTURES)),
        *(len(ids), len(refused), 4, (peak - least) // 1024),
    )


def test_raising_names_the_first_bad_input_in_the_order_of_samples(inputs, featx):
    refused = [one for one in inputs if one.reason]
    assert inputs.index(refused[0]) > 0
    for _ in range(2):  # the second time, from what the first remembers
        done = featx(
            "extract", "data", "-x", "pixels:size=12", "--on-error", "raise", "--workers", "8", code=1
        )
        [line] = done.stderr.splitlines()[-1:]
        assert re.match(f"featx: error: sample '{re.escape(refused[0].id)}': {refused[0].reason}", line)
        assert "--on-error record" in line


def test_a_name_is_told_on_one_line_whatever_it_holds(inputs, featx, tmp_path):
    [newline] = [one for one in inputs if one.kind == "newline" and one.reason]
    for one in PICTURES[:20]:
        one.write(tmp_path / "others")
    newline.write(tmp_path / "others")
    done = featx("extract", "others", "-x", "pixels:size=12")
    assert done.stderr.splitlines() == [f"left out {newline.id}: truncated PNG"]
    assert newline.id.isprintable()
    done = featx("extract", "others", "-x", "pixels:size=12", "--on-error", "raise", code=1)
    assert len(done.stderr.splitlines()) == 1
