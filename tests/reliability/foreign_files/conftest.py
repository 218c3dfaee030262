"""What foreign files are tried on: command lines in processes of their own, watched for every file they open.

Every payload would make the canary; the secret beside the files is what nobody may read.
"""

import ctypes
import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

SECRET = "the secret is 0123456789abcdef, and nobody may see it"

# Forks a process for every command line, so that torch is imported once; a process that is stuck or greedy is ended.
NURSERY = """
import json, os, resource, signal, sys, traceback
import h5py, numpy, skops.io, sklearn.pipeline, torch, torchvision, safetensors.torch
import featx.cli.extract, featx.engine, featx.features, featx.model, featx.extractors.torchvision
import featx.extractors.descriptor_source
from featx.cli.main import main
sys.argv, sys.stdout = ["featx", "list", "heads"], open(os.devnull, "w")
try:
    main()  # what it imports need not be imported again
except SystemExit:
    sys.stdout = sys.__stdout__
for line in sys.stdin:
    arguments, folder = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        signal.alarm(60)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["featx", *arguments]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)  # torch takes a second to be torn down
        except BaseException:
            traceback.print_exc()
        os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def nursery():
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.communicate(timeout=60)


class Watch:
    """Sees every opening of a file, by any process and in any language."""

    def __init__(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.descriptor >= 0
        assert libc.inotify_add_watch(self.descriptor, os.fsencode(path), 0x20) > 0  # IN_OPEN
        path.read_bytes()
        assert self.was_opened()

    def was_opened(self):
        try:
            return bool(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def watch():
    """Watch a file from now on."""
    watches = []

    def watched(path):
        watches.append(Watch(path))
        return watches[-1]

    yield watched
    for one in watches:
        os.close(one.descriptor)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def canary(tmp_path):
    """What every payload would make."""
    return tmp_path / "canary"


@pytest.fixture
def featx(tmp_path, nursery, watch, secret, canary):
    """Run a command line; whatever it does, no payload has run and no secret was opened or shown."""
    watched = watch(secret)

    def run(*arguments, code=0, may_open=False):
        watched.was_opened()  # by the test itself
        nursery.stdin.write(json.dumps([[*map(str, arguments)], str(tmp_path)]) + "\n")
        nursery.stdin.flush()
        found = int(nursery.stdout.readline())
        done = SimpleNamespace(
            code=found, out=(tmp_path / "out").read_text(), err=(tmp_path / "err").read_text()
        )
        assert code is None or done.code == code, done
        assert not canary.exists()
        assert may_open or not watched.was_opened()
        for path in [*tmp_path.glob("*.csv"), *tmp_path.glob("*.h5")]:
            assert SECRET[:20].encode() not in path.read_bytes()
        assert SECRET[:20] not in done.out + done.err
        if code:
            assert done.out == ""
            [line] = done.err.splitlines()
            assert line.startswith("featx: error: ")
        return done

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (2, 2), (40 * number, 0, 7)).save(folder / f"{number}.png")
    return folder


class Payload:
    """Something that, where it is unpickled, makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def payload(canary):
    made = Payload(canary)
    pickle.loads(pickle.dumps(made))
    canary.rmdir()  # so it does run where it is let
    return made


@pytest.fixture
def cache(tmp_path, pictures, featx):
    """A cache that another run filled, and the facts a shard of it must state."""
    featx("extract", pictures, "-x", "pixels:size=1", "--cache", "cache")
    [folder] = (tmp_path / "cache").glob("pixels-*")
    return SimpleNamespace(
        root=tmp_path / "cache", folder=folder, spec=json.loads((folder / "spec.json").read_text())
    )
