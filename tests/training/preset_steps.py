"""Run by test_preset_matrix.py: ``fluxsr fit`` with each preset and strategy, a step each, in one process or two."""

import contextlib
import io
import json
import multiprocessing
import os
import socket
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn

from fluxsr.cli.main import main
from fluxsr.models import FluxBackbone, load_flux

BACKBONE, AUTOENCODER = "--model.backbone.init_args", "--model.autoencoder.init_args"
# Row of the table -> (configuration, preset, further arguments).
PRESETS = {
    "80gb": ("fluxsr_flux1dev", "80gb", []),
    "48gb": ("fluxsr_flux1dev", "48gb", []),
    "24gb": ("fluxsr_flux1dev", "24gb", []),
    "24gb, nf4": ("fluxsr_flux1dev", "24gb", ["--model.backbone=tests.training.preset_steps.four_bits"]),
    "klein_16gb": ("fluxsr_klein4b", "klein_16gb", []),
    "klein_12gb": ("fluxsr_klein4b", "klein_12gb", []),
}


class FourBits(nn.Linear):
    """Stands in for bitsandbytes' layer, which needs CUDA: a frozen weight of bytes, two numbers in each, unpacked to run."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.bias = linear.bias
        self.scale = float(linear.weight.detach().abs().max()) / 7
        levels = (linear.weight.detach() / self.scale).round().clamp(-8, 7).add(8).to(torch.uint8).flatten()
        self.weight = nn.Parameter((levels[::2] * 16 + levels[1::2])[:, None], requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = self.weight.flatten()
        levels = torch.stack([packed // 16, packed % 16], dim=1).to(x.dtype) - 8
        weight = levels.view(self.out_features, self.in_features) * self.scale
        return nn.functional.linear(x, weight, self.bias)


def four_bits(model: str, prompt: str | None = None, guidance: float | None = None, lora_rank: int = 4) -> FluxBackbone:
    """Load a backbone whose frozen linears have 4 bits, with an adapter."""
    backbone = load_flux(
        model, prompt=prompt, guidance=guidance, trainable="none", dtype="bfloat16", gradient_checkpointing=True
    )
    for block in (*backbone.transformer.transformer_blocks, *backbone.transformer.single_transformer_blocks):
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, last = name.rpartition(".")
                setattr(block.get_submodule(parent), last, FourBits(module))
    backbone.quantization = "nf4"
    backbone.add_lora(rank=lora_rank)
    return backbone


def arguments(row: str, pipelines: dict[str, str], photos: str, folder: Path, devices: int, strategy: str) -> list[str]:
    """What is to be smaller than in the configuration, and what needs a GPU."""
    config, preset, more = PRESETS[row]
    model = pipelines[config]
    prompt = f"{model}/prompt.safetensors" if config == "fluxsr_flux1dev" else "null"
    crops = [] if preset == "80gb" else [f"--model.losses.{name}.init_args.crop=16" for name in ("mse", "tv_lpips")]
    eight = ["--model.optimizer=torch.optim.AdamW"] if preset in ("24gb", "klein_16gb", "klein_12gb") else []
    return [
        "fit", "--config", config, "--config", f"memory/{preset}", *more, *crops, *eight,
        f"{BACKBONE}.model={model}", f"{BACKBONE}.prompt={prompt}", f"{BACKBONE}.lora_rank=4",
        f"{AUTOENCODER}.source={model}", "--model.losses.tv_lpips.init_args.loss.init_args.net=nano",
        "--data.pairs=null", f"--data.photos={photos}", "--data.crop=32", "--data.num_workers=0",
        "--trainer.accelerator=cpu", f"--trainer.devices={devices}", f"--trainer.strategy={strategy}",
        "--trainer.max_steps=1", "--trainer.accumulate_grad_batches=1", "--trainer.callbacks=null",
        "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}",
    ]  # fmt: skip


def one(rank: int, port: int, answer: Connection, *given) -> None:
    """Run the command as one of the processes that Lightning starts; sends "" or the line that was said."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    answer.send(said_by(*given))


def said_by(*given) -> str:
    """Run the command; return "" or the line that it ends with."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main(arguments(*given))
    except SystemExit as stopped:
        return f"{stopped.code}: {said.getvalue().strip().splitlines()[-1]}"
    except Exception:
        return traceback.format_exc()
    return ""


def together(*given, devices: int) -> list[str]:
    """Return what each process said, forked from this one, whose imports they all need."""
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [fork.Pipe(duplex=False) for _ in range(devices)]
    processes = [fork.Process(target=one, args=(rank, port, pipes[rank][1], *given)) for rank in range(devices)]
    for process in processes:
        process.start()
    said = [pipe.recv() if pipe.poll(60) else "hangs" for pipe, _ in pipes]
    for process in processes:
        process.join(10)
        process.kill()
    return said


def run() -> None:
    """``pipelines photos folder devices strategy [strategy ...]``."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    pipelines, photos, folder, devices = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    strategies = sys.argv[5:]  # the command has its own
    said = {}
    if devices > 1:  # what one needs, all need: imported before the processes are forked
        said_by("48gb", pipelines, photos, folder / "first", 1, "auto")
    for strategy in strategies:
        for row in PRESETS:
            given = (row, pipelines, photos, folder / row / strategy, devices, strategy)
            said[f"{row}, {strategy}"] = together(*given, devices=devices) if devices > 1 else [said_by(*given)]
    (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    run()
