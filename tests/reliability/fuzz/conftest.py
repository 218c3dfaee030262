"""Fuzzing: many cases from seeds, tried in a process of their own.

`FEATX_FUZZ=200 pytest tests/reliability/fuzz` tries 200 times as many cases as a plain run does.
"""

import collections
import json
import logging
import mmap
import os
import random
import resource
import signal
import struct
import traceback

import pytest

TIMES = int(os.environ.get("FEATX_FUZZ", "1"))
SECONDS = 60
MEMORY = 8 << 30


@pytest.fixture
def fuzz(request):
    """Try many cases in a process of its own, so that a crash, a case that never ends and greed fail the test too."""

    def tried(one, count):
        count *= TIMES
        seed = mmap.mmap(-1, 8)
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            outcomes = collections.Counter()
            try:
                for number in range(count):
                    seed[:] = struct.pack("<q", number)
                    signal.alarm(SECONDS)
                    outcomes[one(random.Random(number))] += 1
                text = json.dumps(outcomes)
            except BaseException:
                text = traceback.format_exc()
            os.write(tell, text.encode("utf-8", "backslashreplace")[-60_000:])
            os._exit(0)
        os.close(tell)
        with os.fdopen(told) as stream:
            text = stream.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        last = struct.unpack("<q", seed[:])[0]
        assert code == 0, (
            f"seed {last} ended the process ({signal.Signals(-code).name if code < 0 else code})"
        )
        assert text.startswith("{"), f"seed {last}: {text}"
        outcomes = json.loads(text)
        logging.getLogger(__name__).info("%s: %d cases: %s", request.node.name, count, outcomes)
        return outcomes

    return tried
