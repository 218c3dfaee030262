import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def library_log():
    """Give the library's log back as it was: a command line that runs in this process takes it over."""
    logger = logging.getLogger("featx")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def photos(tmp_path):
    """Write two classes of ten easily told pictures each, and return their folder."""
    random = np.random.default_rng(0)
    for name, colour in (("blue", (40, 60, 200)), ("red", (200, 60, 40))):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(10):
            pixels = (np.array(colour) + random.normal(0, 30, (24, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def featx(tmp_path, monkeypatch):
    """Run a command line in a fresh process, in a folder of its own; return exit code, output and errors."""

    def run(*arguments, stdin=None, env=None):
        return subprocess.run(
            [sys.executable, "-m", "featx", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "FEATX_CACHE": str(tmp_path / "cache"), **(env or {})},
            stdin=stdin,
            timeout=300,
        )

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line in this process with --json, and return its one object."""
    from featx.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        capsys.readouterr()
        app([*map(str, arguments), "--json"], standalone_mode=False)
        output = capsys.readouterr().out
        assert output.count("\n") == 1, output
        return json.loads(output)

    return run


@pytest.fixture
def text(tmp_path, monkeypatch, capsys):
    """Run a command line in this process, and return what it printed."""
    from featx.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        capsys.readouterr()
        app([*map(str, arguments)], standalone_mode=False)
        return capsys.readouterr()

    return run


@pytest.fixture
def broken(photos) -> Path:
    """Cut one of the photos short."""
    path = photos / "blue" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    return path
