"""An adversary on decoded crops: photos are real, the gradient reaches the adapter, and a resumed training is exact."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from fluxsr.losses import MSELoss
from fluxsr.training import Adversary, ImageAdversary, ImageTerm, StepOutputs
from tests.training.conftest import loader, tiny_batch, tiny_trainer
from tests.training.test_adversary import adversarial_module, changed, kept


class Maps(nn.Module):
    """A frozen network of two layers, with a dropout that must never act."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)])
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=0.3, generator=generator)
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(0.5)

    def forward(self, image):
        maps = []
        for layer in self.layers:
            image = self.dropout(layer(image).relu())
            maps.append(image)
        return maps


def make(crop=16, **arguments) -> ImageAdversary:
    return ImageAdversary(Maps(), crop=crop, **{"width": 8, **arguments})


def outputs_of(module, batch) -> StepOutputs:
    output, passes = module.flow(module.encode(batch))
    return StepOutputs(output, batch.hr_image, module.decode, 2, passes, torch.Generator().manual_seed(0))


def test_photos_are_real_and_each_side_gets_its_own_gradient_only():
    module, batch = adversarial_module(make()), tiny_batch()
    adversary = module.adversary
    outputs = outputs_of(module, batch)
    fakes, reals = adversary.fakes(outputs), adversary.reals(outputs)
    assert fakes.shape == reals.shape == (2, 3, 16, 16)
    corners = [(top, left) for top in range(17) for left in range(17)]
    assert any(torch.equal(reals, batch.hr_image[..., t : t + 16, c : c + 16]) for t, c in corners)
    adversary.generator_loss(adversary.features(fakes)).backward()
    student = [p.grad for p in module.backbone.parameters() if p.requires_grad]
    assert student and all(gradient.norm() > 0 for gradient in student)
    assert all(p.grad is None for p in adversary.parameters())
    module.zero_grad()
    adversary.discriminator_loss(adversary.features(fakes), reals)[0].backward()
    assert all(p.grad is None for p in module.backbone.parameters())
    assert all(p.grad is not None for p in adversary.heads())


def test_one_decoding_serves_the_losses_and_the_adversary():
    decoded = []
    module = adversarial_module(make(), losses={"mse": ImageTerm(MSELoss(), crop=16)})
    decode = module.autoencoder.decode
    batch = tiny_batch()
    output, passes = module.flow(module.encode(batch))
    outputs = StepOutputs(output, batch.hr_image, lambda x: decoded.append(x.shape) or decode(x), 2, passes)
    module.losses["mse"](outputs)
    module.adversary.losses(output.loss, outputs, 0)
    assert len(decoded) == 1


@pytest.mark.parametrize("options", [{}, {"r1_weight": 0.1, "adaptive": True, "accumulate_grad_batches": 2}])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, options):
    batches = loader(4)
    fresh = lambda: kept(adversarial_module(make(**options)))
    straight = fresh()
    tiny_trainer(max_epochs=2).fit(straight, batches)
    first = fresh()
    save = ModelCheckpoint(tmp_path, filename="half", save_on_train_epoch_end=True)
    tiny_trainer(tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[save]).fit(first, batches)
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert len(checkpoint["optimizer_states"]) == 2
    assert any(key.startswith("adversary.discriminator.heads") for key in checkpoint["state_dict"])
    assert not any("network" in key for key in checkpoint["state_dict"])
    second = fresh()
    tiny_trainer(tmp_path, max_epochs=2).fit(second, batches, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for expected, resumed in zip(straight.pages[-1], second.pages[-1], strict=True):
        assert changed(first.pages[-1][0], straight.pages[-1][0])
        for name, value in expected.items():
            assert torch.equal(resumed[name], value), name


def test_the_heads_learn_to_tell_photos_from_what_the_student_makes():
    adversary = make(crop=32, width=64, optimizer=lambda heads: torch.optim.AdamW(heads, lr=5e-2))
    module = adversarial_module(adversary, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer = tiny_trainer(max_epochs=30)
    trainer.fit(module, loader(1, size=4))
    # The student's images are near the photos, so the heads are never sure; who knows nothing has 2.
    assert trainer.logged_metrics["train/discriminator"] < 1.8
    assert trainer.logged_metrics["train/logits_real"] > trainer.logged_metrics["train/logits_fake"] + 0.1


@pytest.mark.parametrize("shape", ["map", "tokens", "layers"])
def test_networks_of_ones_own_return_maps_or_tokens(shape):
    class Own(nn.Module):
        def forward(self, image):
            pooled = nn.functional.avg_pool2d(image, 4)
            return pooled if shape == "map" else pooled.flatten(2).mT

    adversary = make(layers=[-1]) if shape == "layers" else ImageAdversary(Own(), crop=16)
    adversary.judge_with(nn.Identity())
    (features,) = adversary.features(torch.rand(2, 3, 16, 16))
    assert features.shape == ((2, 16, 12) if shape == "layers" else (2, 16, 3))
    assert [logits.shape for logits in adversary.discriminator.judge([features])] == [(2, 16)]


def test_named_towers_see_what_they_were_trained_on(assets, monkeypatch):
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(assets))
    adversary = ImageAdversary("squeeze", crop=64, layers=[2, 5])
    adversary.judge_with(nn.Identity())
    assert [feature.shape[-1] for feature in adversary.features(torch.rand(1, 3, 64, 64))] == [256, 512]
    gray = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert adversary.network.net.tower is not None
    assert torch.allclose(
        (gray - adversary.network.net.mean) / adversary.network.net.deviation, torch.zeros(1), atol=1e-6
    )


def test_mistakes_are_named():
    assert issubclass(ImageAdversary, Adversary)
    with pytest.raises(ValueError, match="dino"):
        ImageAdversary("dino")
    with pytest.raises(ValueError, match="got 8"):
        make(crop=8)

    class Wrong(nn.Module):
        def forward(self, image):
            return {"maps": image}

    with pytest.raises(ValueError, match="Wrong returned a dict"):
        ImageAdversary(Wrong(), crop=16).judge_with(nn.Identity())
