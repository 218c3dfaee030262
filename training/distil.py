"""Distil `nano`, the embedded backbone, from an ImageNet teacher and unlabelled photos; it reads no label.

    python training/distil.py --teacher mobilenet_v2.pth --images photos/ --out runs/nano

Run the same command again to resume. Every five minutes the folder gets a new `checkpoint.pt`, a line in `log.jsonl`
and the backbone so far, `nano.safetensors`: the averaged weights as float16, under torchvision's own names, without
the classifier.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision
from crops import (
    BATCH_CROPS,
    CHUNK_CROPS,
    GRIDS,
    N_HELD_OUT_PHOTOS,
    TEACHER_SIZE,
    WINDOW_CHUNKS,
    Chunk,
    CropMaker,
    Pool,
    Stages,
    Teacher,
    normalise,
    read_photos,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Student", "build_backbone", "main"]

STUDENT_STAGES = {3: 24, 8: 48, 12: 576}  # index in `features`: channels, of the last map at each stride
TEACHER_STAGES = {6: 32, 13: 96, 18: 1280}
HELD_OUT_CROPS_PER_PHOTO = 16
USES_PER_CROP = 8  # how often a crop is drawn on average before it leaves
USES_WHILE_FILLING = 2  # and how often while the pool is not full, after a start
PEAK_LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.9995
CHECKPOINT_SECONDS = 300.0


def main() -> None:
    """Train, or go on training, and leave the backbone in the output folder."""
    options = parse_options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    Run(options).train()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--teacher", type=Path, required=True, help="state dict of torchvision's mobilenet_v2 (.pth)")
    add("--images", type=Path, required=True, help="folder of photos, no labels")
    add("--out", type=Path, required=True, help="folder of the checkpoint, the log and the backbone")
    add("--steps", type=int, default=40_000, help=f"length of the schedule, in batches of {BATCH_CROPS}")
    add("--seconds", type=float, default=math.inf, help="stop after so long; the same command resumes")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1, help="of the student, and of the teacher, who works beside it")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=["float32", "bfloat16"], default="float32", help="of the student's passes")
    return parser.parse_args()


# --- the networks


def build_backbone() -> nn.Module:
    """Return torchvision's mobilenet_v3_small with random weights and no classifier: pixels in, 576 features out."""
    backbone = torchvision.models.mobilenet_v3_small()
    backbone.classifier = nn.Identity()
    return backbone


def read_stages(features: nn.Sequential, pixels: Tensor, stages: Iterable[int]) -> Stages:
    """Run a network's convolutional part and return some of its maps, each averaged to its grid of cells."""
    maps = []
    for index, module in enumerate(features):
        pixels = module(pixels)
        if index in stages:
            maps.append(pixels)
    averaged = [functional.adaptive_avg_pool2d(*pair) for pair in zip(maps, GRIDS, strict=True)]
    return [cells.flatten(2).transpose(1, 2) for cells in averaged]


class Student(nn.Module):
    """The backbone's cells at every stage, mapped linearly to the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone()
        sizes = zip(STUDENT_STAGES.values(), TEACHER_STAGES.values(), strict=True)
        self.projections = nn.ModuleList(nn.Linear(own, wanted) for own, wanted in sizes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # torchvision's 0.01 lags behind in a short run

    def forward(self, pixels: Tensor) -> Stages:
        """Map normalised pixels (n, 3, size, size) to the teacher's standardised cells of every stage."""
        stages = read_stages(self.backbone.features, pixels, STUDENT_STAGES)
        return [project(cells) for project, cells in zip(self.projections, stages, strict=True)]


class TeacherTrunk(nn.Module):
    """The teacher's convolutional part, frozen."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Stages:
        """Map normalised pixels (n, 3, size, size) to the cells of every stage."""
        return read_stages(self.features, pixels, TEACHER_STAGES)


def load_teacher(path: Path, device: str) -> Teacher:
    """Return the teacher as a function from pixels to the cells of every stage."""
    network = torchvision.models.mobilenet_v2()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    trunk = TeacherTrunk(network.features)
    if device != "cpu":
        trunk = trunk.to(device, memory_format=torch.channels_last)
        return lambda pixels: trunk(pixels.to(device))
    return _openvino_function(trunk)


def _openvino_function(trunk: TeacherTrunk) -> Teacher:
    """Compile the teacher for the CPU, where OpenVINO takes a third of torch's time."""
    import openvino

    example = torch.zeros(64, 3, TEACHER_SIZE, TEACHER_SIZE)
    threads = torch.get_num_threads()
    compiled = openvino.Core().compile_model(
        openvino.convert_model(trunk, example_input=example, input=[-1, *example.shape[1:]]),
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"},
    )
    return lambda pixels: [torch.from_numpy(stage.copy()) for stage in compiled(pixels.numpy()).values()]


# --- the training


class Loss(nn.Module):
    """How far the student is from the teacher, in every standardised channel of every cell.

    Parameters
    ----------
    targets : list of Tensor
        Cells of every stage that the channels' mean and standard deviation are taken from.
    """

    def __init__(self, targets: Stages) -> None:
        super().__init__()
        flat = [stage.float().flatten(0, 1) for stage in targets]
        self.means = nn.ParameterList(nn.Parameter(cells.mean(dim=0), requires_grad=False) for cells in flat)
        # A channel that hardly ever answers is not blown up to the size of the others.
        self.stds = nn.ParameterList(
            nn.Parameter(cells.std(dim=0) + 0.02, requires_grad=False) for cells in flat
        )

    def forward(self, predicted: Stages, targets: Stages) -> Tensor:
        """Return each stage's mean squared error: about 1 for one who knows the channels' means only."""
        stages = zip(predicted, targets, self.means, self.stds, strict=True)
        squares = [functional.mse_loss(own, (cells.float() - mean) / std) for own, cells, mean, std in stages]
        return torch.stack(squares)


class Run:
    """One training run: its state, and the folder that it is kept in."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.step = 0
        self.n_chunks = 0
        self.seconds = self.cpu_seconds = 0.0
        teacher = load_teacher(options.teacher, options.device)
        photos = read_photos(options.images)
        held_out = set(np.random.default_rng(0).permutation(len(photos))[:N_HELD_OUT_PHOTOS].tolist())
        self.crops = CropMaker(
            [photo for index, photo in enumerate(photos) if index not in held_out], teacher
        )
        test_crops = CropMaker([photos[index] for index in sorted(held_out)], teacher)
        n_test_crops = N_HELD_OUT_PHOTOS * HELD_OUT_CROPS_PER_PHOTO
        self.held_out = test_crops.make(n_test_crops, random=np.random.default_rng(0), mix=False)
        self.loss = Loss(self.held_out[1]).to(options.device)
        self.student = Student().to(options.device, memory_format=torch.channels_last)
        self.compiled = torch.compile(self.student)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), weight_decay=WEIGHT_DECAY)
        self.pool = Pool()
        self.worker = ThreadPoolExecutor(max_workers=1)
        options.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._load()
        self.next_chunk = self._start_chunk()

    def train(self) -> None:
        """Take steps until the schedule or the time is over, saving on the way and at the end."""
        started = saved = time.monotonic()
        cpu_started, cpu_before, before = time.process_time(), self.cpu_seconds, self.seconds
        losses: list[float] = []
        if self.step == 0:
            self._save(losses)
        while self.step < self.options.steps and time.monotonic() - started < self.options.seconds:
            self._refresh_pool()
            losses.append(self._take_step())
            self.step += 1
            done = self.step == self.options.steps or time.monotonic() - started >= self.options.seconds
            if done or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                saved = time.monotonic()
                self.seconds = before + saved - started
                self.cpu_seconds = cpu_before + time.process_time() - cpu_started
                self._save(losses)
                losses = []
        self.worker.shutdown(cancel_futures=True)

    def _refresh_pool(self) -> None:
        """Let in the next chunk of crops whenever the newest has been used up on average."""
        filling = len(self.pool.chunks) < WINDOW_CHUNKS
        uses = USES_WHILE_FILLING if filling else USES_PER_CROP
        if not self.pool.chunks or self.step % (CHUNK_CROPS * uses // BATCH_CROPS) == 0:
            self.pool.chunks.append(self.next_chunk.result())
            self.n_chunks += 1
            self.next_chunk = self._start_chunk()

    def _start_chunk(self) -> Future[Chunk]:
        """Make the next chunk on the worker's thread, while the student learns from those before it."""
        random = np.random.default_rng([self.options.seed, 1, self.n_chunks])
        return self.worker.submit(self.crops.make, CHUNK_CROPS, random=random, mix=True)

    def _take_step(self) -> float:
        """Draw a batch, follow its gradient, move the average along, return the loss."""
        crops, targets = self.pool.draw(np.random.default_rng([self.options.seed, 2, self.step]))
        device = self.options.device
        pixels = normalise(crops.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options.steps)
        half = self.options.precision == "bfloat16"
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            predicted = self.compiled(pixels)
        loss = self.loss(
            [stage.float() for stage in predicted], [stage.to(device) for stage in targets]
        ).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        move_average(self.average, self.student, decay=min(EMA_DECAY, (1 + self.step) / (10 + self.step)))
        return loss.item()

    @torch.inference_mode()
    def score(self) -> dict[str, float]:
        """Judge the averaged student on crops of the photos that it has not been trained on."""
        crops, targets = self.held_out
        parts = []
        for start in range(0, len(crops), BATCH_CROPS):
            rows = slice(start, start + BATCH_CROPS)
            pixels = normalise(crops[rows].to(self.options.device).float() / 255)
            parts.append(self.average(pixels.contiguous(memory_format=torch.channels_last)))
        predicted = [torch.cat(stage) for stage in zip(*parts, strict=True)]
        squares = self.loss(predicted, [stage.to(self.options.device) for stage in targets])
        named = {f"held_out_stage_{index}": value.item() for index, value in enumerate(squares, start=1)}
        return {"held_out_loss": squares.sum().item(), **named}

    def _save(self, losses: list[float]) -> None:
        """Publish the checkpoint, the backbone so far and a line of the log, each whole or not at all."""
        state = {name: getattr(self, name) for name in ("step", "n_chunks", "seconds", "cpu_seconds")}
        for name in ("student", "average", "optimizer"):
            state[name] = getattr(self, name).state_dict()
        publish(self.checkpoint, lambda path: torch.save(state, path))
        backbone = half_weights(self.average.backbone)
        publish(self.options.out / "nano.safetensors", lambda path: save_file(backbone, path))
        scores = ({"train_loss": sum(losses) / len(losses)} if losses else {}) | self.score()
        line = {"step": self.step, "steps": self.options.steps, "crops": self.step * BATCH_CROPS}
        line |= {"seconds": round(self.seconds), "cpu_seconds": round(self.cpu_seconds)}
        line |= {name: round(value, 4) for name, value in scores.items()}
        with (self.options.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.options.device, weights_only=True)
        for name in ("student", "average", "optimizer"):
            getattr(self, name).load_state_dict(state.pop(name))
        for name, value in state.items():
            setattr(self, name, value)


def learning_rate(step: int, steps: int) -> float:
    """Rise linearly, then fall as a half cosine to zero."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LEARNING_RATE * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def move_average(average: nn.Module, current: nn.Module, *, decay: float) -> None:
    """Move an exponential average of the weights and statistics towards their current values."""
    for averaged, value in zip(average.state_dict().values(), current.state_dict().values(), strict=True):
        if averaged.is_floating_point():
            averaged.lerp_(value, 1 - decay)
        else:
            averaged.copy_(value)


def half_weights(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the backbone's state as float16 (counters stay integers), refusing what float16 cannot hold."""
    state = {name: value.to("cpu") for name, value in backbone.state_dict().items()}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    broken = [name for name, value in halves.items() if not value.isfinite().all()]
    if broken:
        raise SystemExit(
            f"float16 cannot hold {broken[0]}: the training has diverged. Start again with another --seed."
        )
    return {name: value.contiguous() for name, value in halves.items()}


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place and move it there when it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    main()
