"""An architecture with random weights at 1024x1024: seconds, GiB and utilization of each rung of the memory ladder.

    python -m benchmarks.architecture                            # FLUX.2-klein-base-4B; one GPU, at most 10 minutes
    python -m benchmarks.architecture --model flux.1-dev         # or any other name; this one wants 80 GB
    python -m benchmarks.architecture --tiny                     # all of it on a tiny model, on the CPU

The rungs are YAML presets of ``examples/configs``, each also with one thing changed. A training step is FTD's, by
Lightning's trainer and ``OneStepSR``: encode, two backbone passes, decode, MSE, TV-LPIPS and ADL, backward, the optimizer and
an EMA. Then the latency of one step of restoration, by stage. Nothing is downloaded. A rung that fails (for lack of memory,
or of a package) is a row that says so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from benchmarks.architecture_report import LatencyRow, Report, StepRow, describe_machine, stated_peak
from benchmarks.random_weights import materialize, tiny_model
from fluxsr.cli._support.fit_cli import read_experiment
from fluxsr.models import (
    FLUX_ARCHITECTURES,
    FluxBackbone,
    compile_blocks,
    fold_modulation,
    fuse_lora,
    tabulate_modulation,
)
from fluxsr.models.families import FLUX2, family_of
from fluxsr.planning import Experiment, make_plan
from fluxsr.planning.step import make_batch, quiet
from fluxsr.training import OneStepSR
from fluxsr.training.callbacks import EMA

CONFIGS = Path(__file__).parent.parent / "examples" / "configs"
BACKBONE = "--model.backbone.init_args"
GRID = "--model.objective.init_args.time_sampler"
NO_RECOMPUTATION = (f"{BACKBONE}.gradient_checkpointing=false", "--model.autoencoder.init_args.checkpoint_decode=false")
DEFAULT = "flux.2-klein-base-4b"
WARM_UP = 2  # steps: the first makes the optimizer's state and chooses kernels


class Rung(NamedTuple):
    """A name, a preset of ``examples/configs/memory`` or none, and what is changed in it: arguments of ``fluxsr fit``."""

    name: str
    preset: str | None
    changes: tuple[str, ...] = ()


class Ladder(NamedTuple):
    """A configuration of ``examples/configs``, its rungs, these with one thing changed, and the length of the prompt."""

    config: str
    presets: tuple[Rung, ...]
    variants: tuple[Rung, ...]
    text_tokens: int


CROPS = "--model.losses.{}.init_args.crop={}"
WHOLE, SMALL = (tuple(CROPS.format(name, crop) for name in ("mse", "tv_lpips")) for crop in ("null", "512"))
PLAIN_ADAM = "--model.optimizer=torch.optim.AdamW"
FLUX1_LADDER = Ladder(
    "fluxsr_flux1dev",
    (Rung("80gb", "80gb"), Rung("48gb", "48gb"), Rung("24gb", "24gb")),
    (
        Rung("24gb, base in bfloat16, plain AdamW", "24gb", (f"{BACKBONE}.quantize=null", PLAIN_ADAM)),
        Rung("80gb, no gradient checkpointing", "80gb", (f"{BACKBONE}.gradient_checkpointing=false",)),
        Rung(
            "80gb, modulation table",
            "80gb",
            ("--model.modulation_table=true", f"{GRID}=fluxsr.flows.GridTimes", f"{GRID}.init_args.steps=16"),
        ),
        Rung("80gb, decode not checkpointed", "80gb", ("--model.autoencoder.init_args.checkpoint_decode=false",)),
        Rung("80gb, decode cropped to 512", "80gb", SMALL),
        Rung("24gb, base in nf4", "24gb", (f"{BACKBONE}.quantize=nf4",)),
        Rung("24gb, plain AdamW", "24gb", (PLAIN_ADAM,)),
        Rung("48gb, 8-bit Adam", "48gb", ("--model.optimizer=fluxsr.training.AdamW8bit",)),
    ),
    512,
)
KLEIN_LADDER = Ladder(
    "fluxsr_klein4b",
    (Rung("24gb", None), Rung("16gb", "klein_16gb"), Rung("12gb", "klein_12gb")),
    (
        Rung("24gb, no gradient checkpointing", None, (f"{BACKBONE}.gradient_checkpointing=false",)),
        Rung("24gb, decode of the whole image", None, WHOLE),
        Rung("24gb, text stream kept", None, (f"{BACKBONE}.text_stream=true",)),
        Rung("16gb, plain AdamW", "klein_16gb", (PLAIN_ADAM,)),
        Rung("12gb, base in nf4", "klein_12gb", (f"{BACKBONE}.quantize=nf4",)),
    ),
    0,
)


def ladder_of(model: str) -> Ladder:
    """Return the ladder of an architecture's family.

    Raises:
        ValueError: for a name that is not known, with those that are.
    """
    known = [name for name in FLUX_ARCHITECTURES if not name.startswith("nano")]
    if model not in known:
        raise ValueError(f"unknown architecture {model!r}; known: {', '.join(known)}")
    return KLEIN_LADDER if family_of(FLUX_ARCHITECTURES[model]) is FLUX2 else FLUX1_LADDER


def architecture(model: str) -> tuple[str, ...]:
    """Return the arguments of ``fluxsr fit`` that take an architecture by its name."""
    guidance = 3.5 if FLUX_ARCHITECTURES[model]["guidance_embeds"] else "null"
    source = f"black-forest-labs/{model}"
    return (
        f"{BACKBONE}.model={source}",
        f"{BACKBONE}.guidance={guidance}",
        f"--model.autoencoder.init_args.source={source}",
    )


@dataclass
class Setting:
    """What all rungs have in common.

    Attributes:
        ladder: what is measured.
        device: where it runs.
        steps: timed training steps, and passes of inference.
        deadline: ``time.monotonic()`` after which no rung begins.
        changes: further arguments of ``fluxsr fit``.
    """

    ladder: Ladder
    device: torch.device
    steps: int
    deadline: float
    changes: tuple[str, ...] = ()
    model_flops: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def read(self, rung: Rung, *more: str) -> Experiment:
        """Return a rung's run without weights."""
        return read_experiment(
            [
                *("--config", str(CONFIGS / f"{self.ladder.config}.yaml")),
                *(("--config", str(CONFIGS / "memory" / f"{rung.preset}.yaml")) if rung.preset else ()),
                "--trainer.accumulate_grad_batches=1",
                "--model.objective.init_args.lr_time=0.25",  # there is no data to measure it on
                *self.changes,
                *rung.changes,
                *more,
            ],
            self.ladder.text_tokens,
        )

    def synchronize(self) -> float:
        """Wait for the device and return the time in seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def reset_peak(self) -> None:
        """Forget the peak of the device's memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peaks(self) -> tuple[float, float] | tuple[None, None]:
        """Return the GiB that tensors took at most, and those that the allocator took; nothing on the CPU."""
        if self.device.type != "cuda":
            return None, None
        return torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30

    def attempt(self, run: Callable[[], None]) -> str | None:
        """Run, free all that is left, and return what went wrong in one line."""
        if time.monotonic() > self.deadline:
            return "not run: the time was up"
        try:
            run()
            return None
        except torch.OutOfMemoryError:
            return "out of memory"
        except Exception as error:  # whatever it is, the other rungs run
            first = str(error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {first[0]}"
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


class Clock(Callback):
    """Takes the time at the start of every step and at the end of the last, and the memory after the warm-up."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.times: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.times.append(self.setting.synchronize())
        if len(self.times) == WARM_UP + 1:
            self.setting.reset_peak()

    def on_train_end(self, *args: Any) -> None:
        self.times.append(self.setting.synchronize())

    def seconds(self) -> float:
        """Return the median of the timed steps."""
        timed = self.times[WARM_UP:]
        return statistics.median(b - a for a, b in pairwise(timed))


class OnDevice(SingleDeviceStrategy):
    """Lightning's own moves the model to the CPU at the end: 24 GB for nothing."""

    def teardown(self) -> None:
        """Leave everything where it is."""


def train(setting: Setting, rung: Rung, row: StepRow) -> None:
    """Make a few training steps of a rung."""
    # The table is made of the layers themselves, which have contents only on the device. Whoever wants it has a grid of times.
    experiment = setting.read(rung, "--model.modulation_table=false")
    module, settings = experiment.module, experiment.settings
    torch.manual_seed(0)
    materialize(module, setting.device)
    grid = module.objective.time_grid()
    if grid is not None:
        tabulate_modulation(module.backbone, grid)
    batch = make_batch(module, experiment.data, str(setting.device))
    clock, steps = Clock(setting), WARM_UP + setting.steps
    averages: list[Callback] = [EMA()] if settings.average else []
    precision: Any = settings.precision
    batches: Any = [batch] * steps
    with quiet():
        trainer = Trainer(
            accelerator="gpu" if setting.device.type == "cuda" else "cpu", strategy=OnDevice(device=setting.device),
            devices=1, precision=precision, max_steps=steps, gradient_clip_val=settings.gradient_clip_val,
            limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[*averages, clock],
        )  # fmt: skip
        trainer.fit(module, DataLoader(batches, batch_size=None))
    row.seconds = clock.seconds()
    row.peak_gib, row.reserved_gib = setting.peaks()


def plan(setting: Setting, rung: Rung, row: StepRow) -> None:
    """Add what ``fluxsr plan`` says of a rung: its peak, and the FLOPs of a step without recomputation."""
    experiment = setting.read(rung)
    crop: Any = experiment.module.losses["mse"].crop
    row.planned_gib = make_plan(experiment).peak_bytes / 2**30
    rank = experiment.options["model"]["backbone"]["init_args"]["lora_rank"]
    if (crop, rank) not in setting.model_flops:  # nothing else of the ladder changes them by a thousandth
        setting.model_flops[crop, rank] = make_plan(setting.read(rung, *NO_RECOMPUTATION)).flops_per_step
    row.model_tflop = setting.model_flops[crop, rank] / 1e12


def infer(setting: Setting, report: Report) -> None:
    """Measure one step of restoration: encode, the backbone's pass, decode; the model as trained, fused, folded, compiled."""
    experiment = setting.read(setting.ladder.presets[0], *NO_RECOMPUTATION)
    module: OneStepSR = experiment.module
    torch.manual_seed(0)
    materialize(module, setting.device)
    autoencoder: Any = module.autoencoder
    t = torch.full((1,), module.objective.start_time, device=setting.device)
    image = make_batch(module, experiment.data, str(setting.device)).hr_image
    backbone: Any = module.backbone.eval()
    del module, experiment  # each change below lets go of the model before it
    changes: tuple[tuple[str, Callable[[FluxBackbone], FluxBackbone]], ...] = (
        ("whole, adapter apart", lambda model: model),
        ("whole, adapter fused", fuse_lora),
        ("whole, adapter fused, compiled", compile_blocks),
        ("folded", lambda model: fold_modulation(model, float(t))),
        ("folded, compiled", compile_blocks),
    )
    for name, change in changes:
        row = LatencyRow(name)

        def measure(row: LatencyRow = row, change: Callable[..., FluxBackbone] = change) -> None:
            nonlocal backbone
            backbone = change(backbone)
            gc.collect()  # of the model before it
            row.adapter = "fused" if backbone.default_role is None else "apart"
            seconds: list[list[float]] = []
            with torch.inference_mode():
                for step in range(WARM_UP + setting.steps):
                    if step == WARM_UP:
                        setting.reset_peak()
                    times = [setting.synchronize()]
                    latents = autoencoder.encode(image)
                    times.append(setting.synchronize())
                    restored = latents - t * backbone(latents, t)
                    times.append(setting.synchronize())
                    autoencoder.decode(restored)
                    times.append(setting.synchronize())
                    seconds.append([b - a for a, b in pairwise(times)])
            row.encode, row.transformer, row.decode = map(statistics.median, zip(*seconds[WARM_UP:], strict=True))
            row.peak_gib, row.reserved_gib = setting.peaks()

        row.error = setting.attempt(measure)
        report.add(row)


def run(
    output: Path,
    model: str = DEFAULT,
    tiny: bool = False,
    steps: int = 3,
    minutes: float = 8.5,
    peak_tflops: float | None = None,
) -> Report:
    """Measure everything, writing ``output`` with ``.json`` and ``.md`` after every row.

    Args:
        output: path without a suffix.
        model: Name of the architecture.
        tiny: a tiny model on the CPU.
        steps: timed, per row.
        minutes: after so many no row is begun.
        peak_tflops: of the device in dense bfloat16; by default what its maker states, where it is known.
    """
    device = torch.device("cpu" if tiny else "cuda:0")
    ladder = ladder_of(model)
    setting = Setting(ladder, device, steps, time.monotonic() + 60 * minutes, architecture(model))
    machine = describe_machine(device)
    report = Report(output, model, machine, peak_tflops or stated_peak(machine["device"]), tiny)
    with ExitStack() as stack:
        if tiny:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            setting.ladder = ladder._replace(text_tokens=min(ladder.text_tokens, 8))
            setting.changes = (*setting.changes, *tiny_model(folder, model), "--data.crop=64")

        def climb(rungs: tuple[Rung, ...]) -> None:
            for rung in rungs:
                row = StepRow(rung.name)
                row.error = setting.attempt(partial(train, setting, rung, row))
                report.add(row)

        # What matters most comes first; planning needs no device and comes last.
        climb(ladder.presets)
        failed = setting.attempt(lambda: infer(setting, report))
        if failed:
            report.add(LatencyRow("all", error=failed))
        torch.compiler.reset()  # it holds on to what it compiled
        climb(ladder.variants)
        for rung, row in zip((*ladder.presets, *ladder.variants), report.steps, strict=True):
            failed = setting.attempt(partial(plan, setting, rung, row))
            row.error = row.error or (failed and f"no plan: {failed}")
            report.write()
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=DEFAULT, help=f"name of the architecture (default: {DEFAULT})")
    add("--output", type=Path, help="without a suffix: .json and .md are written (default: outputs/MODEL)")
    add("--tiny", action="store_true", help="a tiny random model on the CPU: tries the script, measures nothing of use")
    add("--steps", type=int, default=3, help="timed steps of each row, after a warm-up of two (default: 3)")
    add("--minutes", type=float, default=8.5, help="after so many no row is begun (default: 8.5)")
    add("--peak-tflops", type=float, help="of the device, dense bfloat16 (default: as its maker states, where known)")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("this needs a CUDA device; --tiny tries the script on the CPU")
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    output = options.output or Path("outputs") / options.model
    try:
        ladder_of(options.model)
    except ValueError as error:
        parser.error(str(error))
    report = run(output, options.model, options.tiny, options.steps, options.minutes, options.peak_tflops)
    print(report.markdown())


if __name__ == "__main__":
    main()
