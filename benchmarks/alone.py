"""featx's stages, each alone: what a photo costs to decode for the first extractor, and to forward; prints JSON.

    python benchmarks/alone.py FOLDER -x mobilenet_v2 --cores 2 [--runtimes torch openvino] [--forwarded 128]

Both go through featx's own functions, on as many threads as featx gives them. Costs are seconds a photo, by the
clock (`wall`) and of all cores together (`cpu`), after a start that is not counted.
"""

import argparse
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.engine import OpenCache, Settings, read_extractors
from featx.engine.forward import Batch, ForwardThreads
from featx.engine.hardware import choose_device, default_batch_size
from featx.engine.identify import load
from featx.engine.plan import Task, open_tasks
from featx.engine.runtime import Runtime, build_runtime
from featx.engine.stages import StageClock, prepare_rows
from featx.engine.station import Station
from featx.samples import SampleTable, pillow_warnings_ignored, read_samples

PATIENCE_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-x", dest="extractors", action="append", required=True)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--forwarded", type=int, default=128, help="photos, in whole batches for all lanes")
    parser.add_argument("--cores", type=int, required=True, help="as many decoding threads")
    options = parser.parse_args()
    settings = Settings(precision=options.precision, workers=options.cores)
    device = choose_device(settings.device)
    tasks = open_tasks(
        [one for text in options.extractors for one in read_extractors(text)],
        OpenCache(None),
        device=device,
        precision=settings.precision,
    )
    table = read_samples(options.folder)
    extractors = [load(task.asked, task.spec) for task in tasks]
    # Also what is forwarded below, and what makes the start not count.
    inputs = decode(
        table.take(np.arange(min(options.forwarded, len(table)))), tasks, extractors, workers=options.cores
    )
    found = {
        "precision": tasks[0].spec.precision,
        "decode": cost(lambda: decode(table, tasks[:1], extractors[:1], workers=options.cores), len(table)),
        "forward": {},
    }
    batch_size = default_batch_size(device)
    for station, task in enumerate(tasks):
        batches = batches_of([one[station] for one in inputs], batch_size, options.forwarded)
        found["forward"][task.spec.text] = {}
        for name in options.runtimes:
            # A backbone's own, for a runtime may change it.
            runtime = build_runtime(
                name,
                load(task.asked, task.spec),
                device=device,
                batch_size=batch_size,
                n_samples=len(table),
            )
            forward(runtime, batches[:1] * runtime.lanes)
            found["forward"][task.spec.text][name] = cost(
                lambda runtime=runtime, batches=batches: forward(runtime, batches), options.forwarded
            )
    print(json.dumps(found))


def decode(
    table: SampleTable, tasks: Sequence[Task], extractors: Sequence[Any], *, workers: int
) -> list[dict[int, np.ndarray]]:
    """Read, digest, decode and resize every photo."""
    # The stores are empty, and stay so: every row is missing every time.
    stations = [
        Station(extractor, task.store, None) for task, extractor in zip(tasks, extractors, strict=True)
    ]
    rows = prepare_rows(
        table,
        range(len(table)),
        stations,
        workers=workers,
        ahead=len(table),
        stall_seconds=PATIENCE_SECONDS,
        clock=StageClock(),
    )
    with pillow_warnings_ignored():
        prepared = [one.inputs for one in rows]
    if not all(prepared):
        raise SystemExit("a photo cannot be decoded, or is there twice")
    return prepared


def batches_of(inputs: Sequence[np.ndarray], size: int, number: int) -> list[np.ndarray]:
    return [
        np.stack([inputs[index % len(inputs)] for index in range(start, min(start + size, number))])
        for start in range(0, number, size)
    ]


def forward(runtime: Runtime, batches: Sequence[np.ndarray]) -> None:
    """Run ready batches, so many at a time that no lane waits."""
    threads = ForwardThreads([runtime], stall_seconds=PATIENCE_SECONDS, clock=StageClock())
    under_way: deque[Batch] = deque()
    for batch in batches:
        under_way.append(threads.begin(runtime, batch, part_name=lambda *_: "a batch"))
        if len(under_way) > threads.n_threads + 1:
            threads.wait(under_way.popleft())
    for begun in under_way:
        threads.wait(begun)
    threads.close()


def cost(work: Callable[[], Any], number: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": (time.perf_counter() - wall) / number, "cpu": (time.process_time() - cpu) / number}


if __name__ == "__main__":
    main()
