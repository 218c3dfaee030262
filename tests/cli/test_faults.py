import subprocess
import sys

import pytest

# The whole command line, with a fault in the middle of its work that cannot be caused from outside.
PROGRAM = """
import os, signal, sys
import featx.cache

def fault(directory):
    {fault}

featx.cache.list_extractors = fault
sys.argv = ["featx", "cache", "list"]
from featx.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (
            "raise KeyboardInterrupt",
            130,
            "interrupted; what was computed is kept. Run the same again to go on.",
        ),
        ("signal.raise_signal(signal.SIGTERM)", 143, "terminated; what was computed is kept"),
        (
            "raise MemoryError",
            1,
            "out of memory; what was computed is kept. Use a smaller --batch-size or fewer --workers.",
        ),
        (
            "raise OSError(28, os.strerror(28), 'shards/x.h5')",
            1,
            "cannot use 'shards/x.h5': No space left on device. Check the path and its disk.",
        ),
        ("raise OSError('something odd')", 1, "cannot use: something odd. Check the path and its disk."),
    ],
)
def test_what_stops_a_command_in_the_middle_is_one_line_and_an_exit_code(fault, code, message, tmp_path):
    program = [sys.executable, "-c", PROGRAM.format(fault=fault)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"featx: error: {message}\n")


@pytest.mark.parametrize("words", [["list", "descriptors"], ["--version"]], ids=" ".join)
def test_output_that_nobody_reads_any_more_ends_in_silence(words, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it, nothing is left to be written at the end
    process = subprocess.Popen(
        [sys.executable, "-m", "featx", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert (process.wait(), errors) == (1, "")
