"""Everything that runs on a GPU, on one that is only pretended: no mixture of devices, and no wait that isn't known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from fluxsr.flows import (
    ConsistencySRFlow,
    FlowMatching,
    FlowTrajectoryDistillation,
    GridTimes,
    LatentPair,
    RectifiedSRFlow,
)
from fluxsr.inference import Upscaler
from fluxsr.losses import (
    CharbonnierLoss,
    L1Loss,
    LPIPSLoss,
    MSELoss,
    PeriodicityLoss,
    TVLPIPSLoss,
    patch_artefact_energy,
)
from fluxsr.models import FluxBackbone, PixelAutoencoder, fold_modulation, tabulate_modulation
from fluxsr.training import Adversary, psnr_y
from fluxsr.training.callbacks import EMA, ArtefactMeter, ExportBackbone, PreviewGrid
from tests.models.conftest import perturb, tiny_prompt, tiny_transformer
from tests.pretend_gpu import GPU, pretend_gpu
from tests.training.conftest import loader, tiny_module, tiny_trainer
from tests.training.test_adversary import adversarial_module
from tests.training.test_roles import stage_two


class OnPretendedGPU(SingleDeviceStrategy):
    """Lightning's one device, which is the pretended one."""

    def __init__(self):
        super().__init__(device=GPU)

    def setup_environment(self):
        """Nothing to set up."""

    def teardown(self):
        """Leave everything where it is."""


def adapted(prompt=None, **options) -> FluxBackbone:
    backbone = FluxBackbone(tiny_transformer(in_channels=48, **options), prompt)
    backbone.add_lora(rank=2)
    perturb(backbone)
    return backbone


def test_the_helper_is_strict():
    with pretend_gpu() as machine:
        a, b = torch.ones(2, device="cuda"), torch.ones(2)
        assert a.device == GPU and (a + a).device == GPU and b.device.type == "cpu"
        with pytest.raises(RuntimeError, match="cuda:0"):
            a + b
        with pytest.raises(TypeError, match="numpy"):
            a.numpy()
        assert (a + b.to(a)).tolist() == [2, 2] and float(a.sum()) == 2
        assert a[torch.tensor([0])].device == GPU  # rows by an index on the CPU
        assert sum(machine.waits.values()) == 3


@pytest.mark.parametrize(
    ("objective", "waits"),
    [
        (FlowMatching(), 0),
        (FlowTrajectoryDistillation(0.25), 0),
        (RectifiedSRFlow(velocity_weight=1.0), 0),
        (ConsistencySRFlow(), 0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
def test_a_step_of_an_objective_waits_for_nothing(objective, waits):
    with pretend_gpu() as machine:
        backbone = adapted().to("cuda")
        pair = LatentPair(*(torch.randn(2, 12, 8, 8, device="cuda") for _ in range(3)))
        roles = {role.name: backbone.as_role("student") for role in objective.roles}
        machine.waits.clear()
        output = objective(backbone, pair, **roles)
        output.loss.backward()
        ours = {line: count for line, count in machine.waits.items() if "elsewhere" not in line and "flows" in line}
    assert output.loss.isfinite() and sum(ours.values()) == waits, ours


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_module(lora=None, backbone=adapted()),
        lambda: tiny_module(lora=None, backbone=adapted(tiny_prompt(), guidance_embeds=False)),
        lambda: tiny_module(
            lora=None,
            backbone=adapted(),
            modulation_table=True,
            objective=FlowTrajectoryDistillation(0.25, time_sampler=GridTimes(4)),
        ),
        lambda: tiny_module(lora=None, losses={}, backbone=adapted(), objective=FlowMatching()),
        lambda: stage_two(objective=ConsistencySRFlow(target_decay=0.9)),
        lambda: adversarial_module(Adversary(width=8), stage_two=True),
        lambda: tiny_module(lora=None, backbone=adapted(), distance=LPIPSLoss("nano"), objective=RectifiedSRFlow()),
    ],
    ids=["ftd", "ftd with text", "table", "teacher", "stage 2", "adversary", "stage 1, image distance"],
)
def test_a_training_with_every_callback(make, tmp_path):
    with pretend_gpu():
        module = make()
        module.tile = 16
        callbacks = [
            EMA(),
            PreviewGrid(1, sample_steps=2),
            ArtefactMeter(),
            ExportBackbone(tmp_path / "out.safetensors"),
        ]
        trainer = tiny_trainer(
            tmp_path, strategy=OnPretendedGPU(), max_steps=2, callbacks=callbacks, num_sanity_val_steps=0
        )
        trainer.fit(module, loader(2), loader(1))
        assert all(p.device == GPU for p in module.parameters())
    assert trainer.global_step == 2 and (tmp_path / "out.safetensors").is_file()


def test_a_step_in_training_waits_only_where_it_says(tmp_path):
    def waits(make, steps):
        with pretend_gpu() as machine:
            trainer = tiny_trainer(tmp_path, strategy=OnPretendedGPU(), max_steps=steps)
            trainer.fit(make(), loader(5))  # T_L is measured on as many batches, before the first step
            return {line: count for line, count in machine.waits.items() if "elsewhere" not in line}

    for make in (
        lambda: tiny_module(lora=None, backbone=adapted()),
        lambda: tiny_module(lora=None, losses={}, backbone=adapted(), objective=RectifiedSRFlow()),
        lambda: stage_two(objective=ConsistencySRFlow(target_decay=0.9)),
    ):
        few, many = waits(make, 2), waits(make, 5)
        each_step = {line: count - few.get(line, 0) for line, count in many.items() if count > few.get(line, 0)}
        assert not each_step, each_step


@pytest.mark.parametrize("prompt", [None, tiny_prompt()], ids=["no text", "text"])
def test_folding_and_the_table_on_the_device(prompt):
    with pretend_gpu():
        xt, t = torch.randn(1, 12, 8, 8, device="cuda"), torch.tensor([0.25], device="cuda")
        whole = adapted(prompt)
        whole.transformer.to("cuda")  # as a quantized base is: it loads onto the device, and its prompt stays behind
        table = adapted(prompt).requires_grad_(False)
        table.transformer.to("cuda")
        tabulate_modulation(table, torch.tensor([0.25, 1.0]))
        folded = fold_modulation(whole, 0.25)
        with torch.no_grad():
            expected = whole.to("cuda")(xt, t)
            for model in (folded, table.to("cuda")):
                torch.testing.assert_close(model.to("cuda")(xt, t), expected, rtol=1e-5, atol=1e-6)


def test_the_upscaler():
    with pretend_gpu() as machine:
        upscaler = Upscaler(adapted().eval().to("cuda"), PixelAutoencoder(2), 0.25, window=32, device="cuda", tile=32)
        machine.copies.clear(), machine.waits.clear()
        for pixels in (np.full((20, 24, 3), 99, np.uint8), np.full((20, 24, 4), 999, np.uint16)):
            for fix in ("wavelet", "adain", "none"):
                upscaler.color_fix = fix
                assert upscaler(pixels, scale=2).shape == (40, 48, pixels.shape[2])
    assert machine.copies["pinned"] and not machine.copies["pageable"]
    assert not [line for line in machine.waits if "copy to the GPU" in line]


@pytest.mark.parametrize(
    "loss",
    [MSELoss(), L1Loss(), CharbonnierLoss(), PeriodicityLoss(4), LPIPSLoss("nano"), TVLPIPSLoss(net="nano")],
    ids=lambda x: type(x).__name__,
)
def test_losses_and_metrics(loss):
    with pretend_gpu():
        sr = torch.rand(1, 3, 64, 64, device="cuda").requires_grad_()
        hr = torch.rand(1, 3, 64, 64, device="cuda")
        loss.to("cuda")(sr, hr).backward()
        assert sr.grad.device == GPU
        assert psnr_y(sr.detach(), hr).device == GPU
        assert all(patch_artefact_energy(hr, period).device == GPU for period in (2, 8))
