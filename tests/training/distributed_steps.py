"""Run by test_distributed.py in one process or two: trains each kind a few steps and writes what every step saw and did."""

import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.data import SRDataModule
from fluxsr.flows import ConsistencySRFlow, FlowTrajectoryDistillation, GridTimes, RectifiedSRFlow
from fluxsr.losses import AttentionDiversificationLoss, MSELoss
from fluxsr.models import FluxBackbone, LatentAutoencoder
from fluxsr.models.weight_files import is_writer, whole
from fluxsr.processes import leave_group
from fluxsr.training import Adversary, AtomicCheckpointIO, FeatureTerm, ImageAdversary, ImageTerm
from fluxsr.training.callbacks import EMA, ExportBackbone
from tests.models.conftest import perturb, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.training.conftest import tiny_module, tiny_trainer
from tests.training.test_adversary import adversarial_module
from tests.training.test_image_adversary import Maps
from tests.training.test_roles import stage_two


def adapted(family: str = "flux.1", **arguments) -> FluxBackbone:
    """A backbone whose adapter has no zeros: at B = 0 half of the gradients vanish."""
    backbone = FluxBackbone(tiny_transformer(family=family, in_channels=48), **arguments)
    if family == "flux.2":
        backbone.drop_text_stream()
    backbone.add_lora(rank=4)
    perturb(backbone)
    return backbone


def ftd(**arguments):
    """FTD with an image loss and ADL's tap."""
    losses = {"mse": ImageTerm(MSELoss()), "adl": FeatureTerm(AttentionDiversificationLoss(), weight=0.1)}
    objective = FlowTrajectoryDistillation(0.25, time_sampler=GridTimes(4))
    checkpointing = arguments.pop("gradient_checkpointing", False)
    backbone = adapted(arguments.pop("family", "flux.1"), gradient_checkpointing=checkpointing)
    return tiny_module(lora=None, backbone=backbone, losses=losses, objective=objective, **arguments)


def full():
    """No adapter: the whole model is trained."""
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    return tiny_module(lora=None, backbone=backbone, losses={"mse": ImageTerm(MSELoss())})


def encoder_adapter():
    """An adapter of the encoder, whole on every process, beside the student's; descent, since Adam hides clipping."""
    autoencoder = LatentAutoencoder(tiny_kl(), encoder_lora_rank=2)
    perturb(autoencoder)
    backbone = FluxBackbone(tiny_transformer(in_channels=16))
    backbone.add_lora(rank=4)
    perturb(backbone)
    descent = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    losses = {"mse": ImageTerm(MSELoss())}
    return tiny_module(lora=None, backbone=backbone, autoencoder=autoencoder, losses=losses, optimizer=descent)


def adversary():
    """Adam divides the heads' tiny gradients by themselves, rounding and all; plain descent shows whether they agree."""
    descent = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    return adversarial_module(Adversary(width=8, optimizer=descent), stage_two=True, optimizer=descent)


def image_adversary():
    """As :func:`adversary`, on decoded crops."""
    descent = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    return adversarial_module(
        ImageAdversary(Maps(), crop=32, width=8, optimizer=descent), stage_two=True, optimizer=descent
    )


# name -> (module, arguments of the trainer)
KINDS = {
    "ftd": (lambda: ftd(gradient_checkpointing=True), {"gradient_clip_val": 1.0}),
    "ftd, FLUX.2": (lambda: ftd(family="flux.2", gradient_checkpointing=True), {}),
    "ftd, accumulated": (ftd, {"accumulate_grad_batches": 2}),
    "ftd, modulation table": (lambda: ftd(modulation_table=True, gradient_checkpointing=True), {}),
    "ftd, in full": (full, {}),
    "ftd, encoder adapter": (encoder_adapter, {"gradient_clip_val": 0.1}),
    "stage 1": (
        lambda: tiny_module(lora=None, backbone=adapted(), losses={}, objective=RectifiedSRFlow(velocity_weight=1.0)),
        {},
    ),
    "stage 2": (lambda: stage_two(objective=ConsistencySRFlow(target_decay=0.9)), {}),
    "adversary": (adversary, {"enable": ("auto", "ddp_find_unused_parameters_true", "fsdp2")}),
    "image adversary": (image_adversary, {"enable": ("auto", "ddp_find_unused_parameters_true", "fsdp2")}),
}


class Record(Callback):
    """Keeps the loss and the gradients of every step, in one piece."""

    def __init__(self):
        self.losses, self.gradients, self.images = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.images.append(batch.index.tolist())

    def on_train_batch_end(self, trainer, module, *args):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        named = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        self.gradients.append({name: whole(gradient).clone() for name, gradient in named.items()})


def train(kind: str, folder: Path, devices: int, strategy: str, steps: int = 2, checkpoint: str | None = None) -> dict:
    """Train one kind; returns what was recorded and the weights at the end."""
    make, options = KINDS[kind]
    module, record = make(), Record()
    options = {key: value for key, value in options.items() if key != "enable"}
    here = folder / kind
    save = ModelCheckpoint(here, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = tiny_trainer(
        here,
        max_steps=steps,
        devices=devices,
        strategy=strategy,
        callbacks=[record, EMA(0.5), ExportBackbone(), save],
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
        **options,
    )
    data = SRDataModule(photos=sys.argv[1], crop=32, batch_size=4 // devices, samples_per_image=4, seed=3)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    weights = {name: whole(p).detach().clone() for name, p in module.trained.parameters().items()}
    averages = {
        name: whole(p).detach().clone() for name, p in module.named_parameters() if module.roles.is_average(name)
    }
    own = ("gradients", "losses", "images")
    return {name: getattr(record, name) for name in own} | {"weights": weights, "targets": averages}


def main() -> None:
    """``photos folder devices strategy [kind checkpoint]``; with the last two, one kind goes on from there."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder, devices, strategy = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if len(sys.argv) > 5:
        results = {sys.argv[5]: train(sys.argv[5], folder, devices, strategy, steps=3, checkpoint=sys.argv[6])}
    else:
        kinds = [kind for kind, (_, options) in KINDS.items() if strategy in options.get("enable", (strategy,))]
        results = {kind: train(kind, folder, devices, strategy) for kind in kinds}
    if is_writer():
        torch.save(results, folder / "results.pt")
    leave_group()


if __name__ == "__main__":
    main()
