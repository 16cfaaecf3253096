import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from fluxsr.data import SRDataModule
from fluxsr.flows import FlowMatching
from fluxsr.losses import MSELoss
from fluxsr.models import load_flux
from fluxsr.training import ImageTerm
from fluxsr.training.callbacks import EMA, ArtefactMeter, ExportBackbone, ImageWriter, PreviewGrid
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer

MSE = {"mse": ImageTerm(MSELoss())}


def test_ema_has_its_closed_form():
    from lightning import Callback

    weights = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            weights.append({name: p.detach().clone() for name, p in module.trained.parameters().items()})

    module = tiny_module(losses=MSE)
    start = {name: p.detach().clone() for name, p in module.trained.parameters().items()}
    ema = EMA(decay=0.3)
    tiny_trainer(max_steps=4, callbacks=[Record(), ema]).fit(module, loader(4))
    # Decays of (1 + n) / (10 + n) = 2/11, 3/12, 4/13, and from the third step on the given 0.3.
    shares = [2 / 11 * 0.25 * 0.09, 9 / 11 * 0.25 * 0.09, 0.75 * 0.09, 0.7 * 0.3, 0.7]
    assert sum(shares) == pytest.approx(1)
    for name, average in ema.average.items():
        expected = sum(share * state[name] for share, state in zip(shares, [start, *weights], strict=True))
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-7)


def test_ema_counts_optimizer_steps_not_accumulated_batches():
    ema, module = EMA(decay=0.0), tiny_module(losses=MSE)
    tiny_trainer(max_steps=2, accumulate_grad_batches=2, callbacks=[ema]).fit(module, loader(4))
    for name, average in ema.average.items():
        torch.testing.assert_close(average, module.trained.parameters()[name].detach())


def test_ema_validates_the_average_and_gives_the_weights_back(tmp_path):
    module, ema = tiny_module(losses=MSE), EMA(decay=0.5)
    trainer = tiny_trainer(tmp_path, max_steps=2, callbacks=[ema])
    trainer.fit(module, loader(2))
    weights = {name: p.detach().clone() for name, p in module.trained.parameters().items()}
    seen = {}

    def validation_step(batch, batch_idx):
        seen.update({name: p.detach().clone() for name, p in module.trained.parameters().items()})

    module.validation_step = validation_step
    trainer.validate(module, loader(1), verbose=False)
    assert all(torch.equal(seen[name], ema.average[name]) for name in seen)
    assert any(not torch.equal(seen[name], weights[name]) for name in seen)
    assert all(torch.equal(p, weights[name]) for name, p in module.trained.parameters().items())


def test_ema_of_bfloat16_weights_is_float32_and_moves():
    module = tiny_module(losses=MSE)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    ema, trainer = EMA(0.999), SimpleNamespace(global_step=20_000)
    ema.on_fit_start(trainer, module)
    start = {name: tensor.clone() for name, tensor in ema.average.items()}
    with torch.no_grad():
        for parameter in module.trained.parameters().values():
            parameter.add_(1.0)
    for _ in range(100):
        trainer.global_step += 1
        ema.on_train_batch_end(trainer, module)
    for name, average in ema.average.items():
        goal = module.trained.parameters()[name].detach().float()
        assert average.dtype == torch.float32
        torch.testing.assert_close(average, goal + (start[name] - goal) * 0.999**100, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_written_during_validation_holds_the_weights(tmp_path):
    class Save(Callback):
        def on_validation_batch_end(self, trainer, module, *args):
            trainer.save_checkpoint(tmp_path / "inside.ckpt")

    module = tiny_module(losses=MSE)
    trainer = tiny_trainer(tmp_path, max_steps=3, callbacks=[EMA(0.9), Save()], num_sanity_val_steps=0)
    trainer.fit(module, loader(3), loader(1))
    inside = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    average = inside["callbacks"]["EMA"]["average"]
    for name, weight in module.trained.parameters().items():
        assert torch.equal(inside["state_dict"][name], weight)
    assert any(not torch.equal(average[name], weight) for name, weight in module.trained.parameters().items())


def test_preview_grid_holds_four_columns(tmp_path):
    tiny_trainer(tmp_path, max_steps=1, callbacks=[PreviewGrid(images=3, size=24)]).fit(
        tiny_module(losses=MSE), loader(1), loader(2)
    )
    (path,) = (tmp_path / "previews").iterdir()
    assert path.name == "step-00000001.png"
    assert Image.open(path).size == (4 * 24, 3 * 24)


def test_preview_grid_of_a_teacher_holds_samples(tmp_path):
    module = tiny_module(lora=None, losses={}, objective=FlowMatching())
    tiny_trainer(tmp_path, max_steps=1, callbacks=[PreviewGrid(images=2, sample_steps=2)]).fit(
        module, loader(1), loader(1)
    )
    assert Image.open(tmp_path / "previews" / "step-00000001.png").size == (4 * 32, 2 * 32)


def test_missing_previews_are_announced_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)  # Lightning 2.6.0 switches it off
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        tiny_trainer(tmp_path, max_epochs=2, callbacks=[PreviewGrid()]).fit(tiny_module(losses=MSE), loader(1))
        # By record: pytest may hear one twice, at this logger and at the root.
        said = {id(record): record.message for record in caplog.records if "previews" in record.message}
        assert len(said) == 1 and "--data.val_photos" in caplog.text
        caplog.clear()
        tiny_trainer(tmp_path, max_steps=1, callbacks=[PreviewGrid()]).fit(
            tiny_module(losses=MSE), loader(1), loader(1)
        )
        assert not [record for record in caplog.records if "previews" in record.message]


def test_artefact_meter_logs_both(tmp_path):
    trainer = tiny_trainer(callbacks=[ArtefactMeter()])
    trainer.validate(tiny_module(losses=MSE), loader(1, side=64), verbose=False)
    assert trainer.callback_metrics["val/artefact_db"].isfinite()
    assert trainer.callback_metrics["val/artefact_db_hr"].isfinite()


def test_export_writes_the_average(tmp_path):
    module, ema = tiny_module(lora=None, losses=MSE), EMA(decay=0.9)
    tiny_trainer(tmp_path, max_steps=2, callbacks=[ema, ExportBackbone()]).fit(module, loader(2))
    loaded = load_flux(str(tmp_path / "backbone.safetensors"), trainable="none")
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, ema.average[f"backbone.{name}"], rtol=0, atol=0)


def test_an_earlier_runs_export_is_kept(tmp_path):
    """Another run in the same folder; its own later exports, and a resumed run, replace what is theirs."""

    def run(steps, **fit):
        own = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
        trainer = tiny_trainer(tmp_path, max_steps=steps, callbacks=[ExportBackbone(), own], enable_checkpointing=True)
        trainer.fit(tiny_module(losses=MSE), loader(steps), **fit)
        return (tmp_path / "backbone.safetensors").read_bytes()

    def earlier():
        return {path.parent.name: path.read_bytes() for path in tmp_path.glob("earlier-*/backbone.safetensors")}

    first = run(1)
    assert not earlier()
    second = run(2)
    assert earlier() == {"earlier-1": first} and second != first
    resumed = run(3, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert earlier() == {"earlier-1": first} and resumed != second
    run(1)
    assert earlier() == {"earlier-1": first, "earlier-2": resumed}


def test_results_keep_their_folders_and_never_overwrite_each_other(tmp_path, photos):
    sources = tmp_path / "in"
    for name in ("a/1.png", "b/1.png", "1.png", "1.jpg"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(next(photos.glob("*.png"))).crop((0, 0, 24, 24)).save(sources / name)
    trainer = tiny_trainer(tmp_path, callbacks=[ImageWriter(str(tmp_path / "out"))])
    trainer.predict(tiny_module(), datamodule=SRDataModule(predict=str(sources)))
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert made == {"a/1.png", "b/1.png", "1.png.png", "1.jpg.png"}


def test_results_of_own_batches_never_overwrite_each_other(tmp_path):
    own = partial(torch.utils.data.DataLoader, batch_size=None)
    batches = [{"lr_image": torch.rand(1, 3, 8, 8), "paths": [f"{folder}/1.png"]} for folder in "aab"]
    trainer = tiny_trainer(tmp_path, callbacks=[ImageWriter(str(tmp_path / "out"))])
    trainer.predict(tiny_module(), own(batches[:2]))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.png"]
    with pytest.raises(ValueError, match=r"a/1\.png and b/1\.png would both become"):
        trainer.predict(tiny_module(), own(batches))
    with pytest.raises(ValueError, match="the batch needs paths"):
        trainer.predict(tiny_module(), own([torch.rand(1, 3, 8, 8)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(decay=1.0), "got 1.0"),
        (lambda: ArtefactMeter(period=1), "got 1"),
        (lambda: PreviewGrid(images=0), "got 0"),
        (lambda: ExportBackbone("model.ckpt"), "model.ckpt"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("lora", [4, None])
def test_an_exported_file_tells_the_upscaler_what_it_needs(tmp_path, lora):
    """What was trained upscales with nothing but its file's name: start time, window and all."""
    from fluxsr.flows import RectifiedSRFlow
    from fluxsr.inference import Upscaler
    from fluxsr.models import PixelAutoencoder, load_flux

    backbone = load_flux("nano", trainable="full" if lora is None else "lora", lora_rank=lora or 1)
    parts = {"backbone": backbone, "autoencoder": PixelAutoencoder()}
    module = tiny_module(lora=None, losses={}, **parts, objective=RectifiedSRFlow(), tile=32)
    tiny_trainer(tmp_path, max_steps=1, callbacks=[ExportBackbone()]).fit(module, loader(1))
    file = tmp_path / "backbone.safetensors"
    where = {"model": file} if lora is None else {"model": "nano", "lora": file}
    upscaler = Upscaler.from_pretrained(**where, device="cpu", color_fix="none")
    assert (upscaler.start_time, upscaler.window) == (1.0, 32)
    lr_image = tiny_batch(size=1).lr_image
    with torch.inference_mode():
        expected = module.eval()(lr_image)
    torch.testing.assert_close(upscaler(lr_image, scale=4), expected, rtol=0, atol=1e-5)
