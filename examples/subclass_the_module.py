"""Subclass the LightningModule: one more loss, one more metric, another optimizer.

    python examples/subclass_the_module.py PHOTOS

Each arrow of the training step is a short method; override the one that you want to change.
"""

import sys

import torch
from lightning import Trainer
from torchmetrics.functional.image import structural_similarity_index_measure

from fluxsr.data import SRDataModule
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.losses import L1Loss
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.training import ImageTerm, OneStepSR


class SharperSR(OneStepSR):
    """OneStepSR that also compares image gradients, logs SSIM, and uses plain SGD."""

    def compute_terms(self, outputs):
        terms = super().compute_terms(outputs)
        sr_image, hr_image = outputs.images()  # decoded once, shared with the other terms
        terms["edges"] = (0.5, (sr_image.diff(dim=-1) - hr_image.diff(dim=-1)).abs().mean())
        return terms

    def validation_step(self, batch, batch_idx):
        images = super().validation_step(batch, batch_idx)
        ssim = structural_similarity_index_measure(images["sr_image"], images["hr_image"], data_range=1.0)
        # A mean over images, which batches of different sizes would not give, and over processes.
        self.log("val/ssim", ssim, batch_size=len(images["hr_image"]), sync_dist=True)
        return images

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=1e-2, momentum=0.9)


def main(photos: str, steps: int = 20) -> Trainer:
    module = SharperSR(
        backbone=load_flux("nano", lora_rank=8),  # the shipped teacher with a new LoRA
        autoencoder=PixelAutoencoder(),
        objective=FlowTrajectoryDistillation(lr_time=0.25),
        losses={"l1": ImageTerm(L1Loss())},
    )
    data = SRDataModule(photos=photos, val_photos=photos, crop=128, val_crop=128, batch_size=2, samples_per_image=8)
    trainer = Trainer(accelerator="auto", devices=1, max_steps=steps, logger=False, enable_checkpointing=False)
    trainer.fit(module, datamodule=data)
    return trainer


if __name__ == "__main__":
    main(sys.argv[1])
