"""Run by test_in_step.py in one process or two: work of which the processes have different amounts."""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning import Callback

from fluxsr.data import SRDataModule
from fluxsr.flows import ConsistencySRFlow, FlowMatching, FlowTrajectoryDistillation
from fluxsr.models import FluxBackbone
from fluxsr.models.weight_files import is_writer, whole
from fluxsr.processes import leave_group
from fluxsr.training.callbacks import ArtefactMeter, PreviewGrid
from tests.models.conftest import perturb, tiny_transformer
from tests.training.conftest import tiny_module, tiny_trainer
from tests.training.test_roles import stage_two


class Seen(Callback):
    """Keeps the losses, and what was predicted."""

    def __init__(self):
        self.losses, self.predicted = [], 0

    def on_train_batch_end(self, trainer, module, *args):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_predict_batch_end(self, trainer, module, outputs, *args):
        self.predicted += len(outputs)


class OneMore(FlowTrajectoryDistillation):
    """Calls the student once more on the first process."""

    def forward(self, velocity, pair, **options):
        output = super().forward(velocity, pair, **options)
        if not is_writer():
            return output
        return output._replace(loss=output.loss + velocity(pair.hr, torch.full((len(pair.hr),), 0.5)).square().mean())


def adapted() -> FluxBackbone:
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    backbone.add_lora(rank=2)
    perturb(backbone)
    return backbone


def main() -> None:
    """``photos mixed folder devices strategy``."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    photos, mixed = sys.argv[1:3]
    folder, devices, strategy = Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    results = {}

    def trainer(name, **arguments):
        seen = Seen()
        callbacks = [seen, *arguments.pop("callbacks", [])]
        return seen, tiny_trainer(
            folder / name, devices=devices, strategy=strategy, callbacks=callbacks, num_sanity_val_steps=0, **arguments
        )

    def data(**arguments):
        return SRDataModule(photos=photos, crop=32, samples_per_image=2, seed=3, **arguments)

    # Photos of different sizes in tiles, a meter for which some are too small, three photos on two processes.
    module = tiny_module(lora=None, losses={}, backbone=adapted(), tile=32)
    seen, run = trainer("tiles", max_steps=2, val_check_interval=2, callbacks=[ArtefactMeter()])
    run.fit(module, datamodule=data(batch_size=2 // devices, val_photos=mixed))
    results["tiles"] = {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("val/")}
    run.test(module, datamodule=SRDataModule(test_photos=mixed), verbose=False)
    results["test"] = {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("test/")}
    seen, run = trainer("predict")
    run.predict(module, datamodule=SRDataModule(predict=mixed))
    results["predicted"] = seen.predicted

    # A teacher's samples, which the first process draws.
    teacher = tiny_module(lora=None, losses={}, backbone=adapted(), objective=FlowMatching())
    _, run = trainer("teacher", max_steps=2, val_check_interval=2, callbacks=[PreviewGrid(2, sample_steps=2)])
    run.fit(teacher, datamodule=data(batch_size=2 // devices, val_photos=mixed, val_crop=24))
    results["pictures"] = len(list((folder / "teacher" / "previews").glob("*.png")))

    # One row each: a flow row here calls neither the teacher nor the average, which the other's row does.
    module = stage_two(objective=ConsistencySRFlow(target_decay=0.9))
    seen, run = trainer("stage 2", max_steps=3)
    run.fit(module, datamodule=data(batch_size=2 // devices))
    results["losses"] = seen.losses
    weights = {name: whole(p) for name, p in module.trained.parameters().items()}
    results["weights"] = float(sum(weight.double().norm() ** 2 for weight in weights.values()))

    # T_L is measured: each process sees other photos, and one value rules.
    module = tiny_module(lora=None, losses={}, backbone=adapted(), objective=FlowTrajectoryDistillation("auto"))
    _, run = trainer("measured", max_steps=1)
    run.fit(module, datamodule=data(batch_size=2 // devices))
    results["lr_times"] = [
        float(one) for one in run.strategy.all_gather(torch.tensor([module.objective.lr_time])).flatten()
    ]

    # The first process trains on one state more than the others: no order of calls brings them together.
    module = tiny_module(lora=None, losses={}, backbone=adapted(), objective=OneMore())
    _, run = trainer("one more", max_steps=1)
    try:
        run.fit(module, datamodule=data(batch_size=2 // devices))
    except ValueError as error:
        results["refused"] = str(error)
    if is_writer():
        (folder / "results.json").write_text(json.dumps(results))
    leave_group()


if __name__ == "__main__":
    main()
