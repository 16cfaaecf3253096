"""The encoder's adapter: without effect at first, trained with the student, kept beside it, fused for inference."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from fluxsr.inference import Upscaler
from fluxsr.losses import MSELoss
from fluxsr.models import FluxBackbone, LatentAutoencoder, StudentRecord, load_autoencoder, load_flux
from fluxsr.models.encoder_lora import encoder_lora_path, is_encoder_lora
from fluxsr.training import ImageTerm
from fluxsr.training.callbacks import ExportBackbone
from tests.models.conftest import tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


def perturbed(rank: int = 2) -> LatentAutoencoder:
    torch.manual_seed(0)
    autoencoder = LatentAutoencoder(tiny_kl(), encoder_lora_rank=rank)
    with torch.no_grad():
        for name, parameter in autoencoder.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    return autoencoder


def adapted_module(autoencoder=None, **arguments):
    torch.manual_seed(0)
    backbone = FluxBackbone(tiny_transformer(in_channels=16))
    autoencoder = LatentAutoencoder(tiny_kl(), encoder_lora_rank=2) if autoencoder is None else autoencoder
    return tiny_module(backbone=backbone, autoencoder=autoencoder, losses={"mse": ImageTerm(MSELoss())}, **arguments)


def test_it_starts_without_effect_and_alone_is_trainable():
    plain, autoencoder = LatentAutoencoder(tiny_kl()), LatentAutoencoder(tiny_kl(), encoder_lora_rank=2)
    image = tiny_batch().hr_image
    assert torch.equal(autoencoder.encode(image), plain.encode(image))
    trainable = [name for name, p in autoencoder.named_parameters() if p.requires_grad]
    assert trainable and all(is_encoder_lora(name) and ".encoder." in name for name in trainable)
    layers = (module for name, module in plain.vae.named_modules() if name.startswith("encoder."))
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(trainable) == 2 * len(convolutions)
    with pytest.raises(ValueError, match="encoder_lora_rank must be at least 1, got 0"):
        LatentAutoencoder(tiny_kl(), encoder_lora_rank=0)
    with pytest.raises(ValueError, match="pixel has no encoder"):
        load_autoencoder("pixel", encoder_lora_rank=2)


def test_targets_are_encoded_by_the_frozen_encoder():
    autoencoder, image = perturbed(), tiny_batch().hr_image
    frozen = LatentAutoencoder(tiny_kl()).encode(image)
    assert torch.equal(autoencoder.encode_target(image), frozen)
    assert not torch.allclose(autoencoder.encode(image), frozen, atol=1e-3)
    module = adapted_module(perturbed())
    pair = module.encode(tiny_batch())
    assert torch.equal(pair.hr, frozen) and not pair.hr.requires_grad
    assert pair.lr.requires_grad


def test_the_students_losses_train_it_and_checkpoints_hold_it():
    module = adapted_module()
    names = [name for name in module.trained.parameters() if name.startswith("autoencoder.")]
    before = {name: module.trained.parameters()[name].detach().clone() for name in names}
    others = {n: p.detach().clone() for n, p in module.autoencoder.named_parameters() if not is_encoder_lora(n)}
    tiny_trainer(max_steps=3).fit(module, loader(3))
    after = module.trained.parameters()
    assert names and all(not torch.equal(after[name], before[name]) for name in names)
    assert all(torch.equal(p, others[n]) for n, p in module.autoencoder.named_parameters() if n in others)
    assert set(names) <= set(module.state_dict())
    assert not any("autoencoder" in name and not is_encoder_lora(name) for name in module.state_dict())


def test_what_is_exported_upscales_as_the_module_does(tmp_path):
    tiny_kl().save_pretrained(tmp_path / "vae")
    tiny_transformer(in_channels=16).save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    backbone = load_flux(str(tmp_path / "base"), lora_rank=2)
    autoencoder = load_autoencoder(str(tmp_path / "vae"), encoder_lora_rank=3)
    module = tiny_module(
        lora=None, backbone=backbone, autoencoder=autoencoder, losses={"mse": ImageTerm(MSELoss())}, tile=64,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-2),
    )  # fmt: skip
    path = tmp_path / "student.safetensors"
    tiny_trainer(tmp_path, max_steps=3, callbacks=[ExportBackbone(str(path))]).fit(module, loader(3))
    with safe_open(path, "pt") as file:
        assert "encoder_lora" in file.metadata()
    arguments = {"lora": str(path), "autoencoder": str(tmp_path / "vae"), "color_fix": "none", "device": "cpu"}
    upscaler = Upscaler.from_pretrained(str(tmp_path / "base"), **arguments)
    assert not any("lora" in name for name, _ in upscaler.autoencoder.named_parameters())
    image = tiny_batch().lr_image[0]
    with torch.no_grad():
        expected = module.eval()(image[None])[0]
    torch.testing.assert_close(upscaler(image, scale=4), expected, rtol=0, atol=2e-5)

    other = tmp_path / "moved" / "student.safetensors"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"student_encoder\.safetensors is missing"):
        Upscaler.from_pretrained(str(tmp_path / "base"), **{**arguments, "lora": str(other)})
    foreign = encoder_lora_path(other)
    foreign.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="is not the encoder's adapter that"):
        Upscaler.from_pretrained(str(tmp_path / "base"), **{**arguments, "lora": str(other)})


def test_a_pipeline_refuses_an_encoder_whose_adapter_it_would_lose():
    from fluxsr.inference import FluxSRPipeline

    backbone = FluxBackbone(tiny_transformer(in_channels=16))
    with pytest.raises(ValueError, match="the autoencoder's encoder has an adapter"):
        FluxSRPipeline.from_backbone(backbone, perturbed(), StudentRecord(start_time=0.25))


def test_a_pipeline_holds_the_encoder_fused(tmp_path):
    from fluxsr.inference.export import export_model

    tiny_kl().save_pretrained(tmp_path / "vae")
    tiny_transformer(in_channels=16).save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    backbone = load_flux(str(tmp_path / "base"), lora_rank=2)
    module = tiny_module(
        lora=None, backbone=backbone, autoencoder=perturbed(), losses={"mse": ImageTerm(MSELoss())}, tile=64
    )
    path = tmp_path / "student.safetensors"
    tiny_trainer(tmp_path, max_steps=1, callbacks=[ExportBackbone(str(path))]).fit(module, loader(1))
    arguments = {"lora": str(path), "autoencoder": str(tmp_path / "vae")}
    image = tiny_batch().lr_image[0]
    expected = Upscaler.from_pretrained(str(tmp_path / "base"), device="cpu", **arguments)(image, scale=4)
    for output in ("pipeline", "single.safetensors"):
        export_model(str(tmp_path / output), model=str(tmp_path / "base"), **arguments)
        more = {"autoencoder": str(tmp_path / "vae")} if output.endswith("safetensors") else {}
        made = Upscaler.from_pretrained(str(tmp_path / output), device="cpu", window=64, **more)(image, scale=4)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
