import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.flows import (
    ConsistencySRFlow,
    FlowMatching,
    FlowOutput,
    FlowTrajectoryDistillation,
    GridTimes,
    LatentPair,
    RectifiedSRFlow,
)
from fluxsr.losses import L1Loss, MSELoss
from fluxsr.models import FluxBackbone, PixelAutoencoder
from fluxsr.training import ImageTerm, OneStepSR, StepOutputs, psnr_y
from fluxsr.training.callbacks import EMA
from fluxsr.training.terms import gradient_norms
from tests.models.conftest import both_families, perturb, tiny_transformer
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


def one_step_terms(module: OneStepSR, batch):
    """The terms of one step, outside a trainer."""
    pair = module.encode(batch)
    output, passes = module.flow(pair)
    decode = module.autoencoder.decode
    return module.compute_terms(StepOutputs(output, batch.hr_image, decode, module.autoencoder.downsample, passes))


@both_families
def test_every_single_lora_tensor_gets_one_and_nothing_frozen_does(family):
    module = tiny_module(family=family)
    perturb(module.backbone)
    terms = one_step_terms(module, tiny_batch())
    norms = gradient_norms(terms, module.trained.parameters().values())
    assert set(norms) == {"flow", "mse", "tv_lpips", "adl", "latent"}
    assert all(norm.isfinite() and norm > 0 for norm in norms.values()), norms
    sum(weight * value for weight, value in terms.values()).backward()
    for name, parameter in module.named_parameters():
        if ".lora_" in name:
            assert parameter.grad.norm() > 0 and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name


def test_pixel_losses_reach_the_student_only_through_the_decoder(monkeypatch):
    # The bug of public attempts: the reconstruction on a detached latent trains nothing, and nobody notices.
    module = tiny_module(losses={"mse": ImageTerm(MSELoss())}, flow_weight=0.0)
    perturb(module.backbone)
    terms = one_step_terms(module, tiny_batch())
    assert gradient_norms(terms, module.trained.parameters().values())["mse"] > 0
    decode = module.autoencoder.decode
    monkeypatch.setattr(module.autoencoder, "decode", lambda latents: decode(latents.detach()))
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient_norms(one_step_terms(module, tiny_batch()), module.trained.parameters().values())


def test_lr_images_are_enlarged_then_encoded():
    module, batch = tiny_module(), tiny_batch()
    pair = module.encode(batch)
    enlarged = torch.nn.functional.interpolate(batch.lr_image, size=(32, 32), mode="bicubic").clamp(0, 1)
    assert torch.equal(pair.lr, module.autoencoder.encode(enlarged))
    assert torch.equal(pair.hr, module.autoencoder.encode(batch.hr_image))
    assert pair.noise.shape == pair.hr.shape


def test_pairs_of_another_autoencoder_are_refused_before_the_first_step(tmp_path):
    from fluxsr.data import SRDataModule
    from fluxsr.models import FluxBackbone, PixelAutoencoder
    from fluxsr.training.pair_maker import make_pairs

    make_pairs(str(tmp_path / "pairs"), num=4, steps=1, size=32)
    data = SRDataModule(pairs=str(tmp_path / "pairs"), crop=32, batch_size=2)

    def module(**options):
        backbone = FluxBackbone.from_transformer(tiny_transformer(in_channels=192))  # of the nano teacher's latents
        return tiny_module(losses={}, backbone=backbone, autoencoder=PixelAutoencoder(**options))

    tiny_trainer(max_steps=1).fit(module(), datamodule=data)
    with pytest.raises(ValueError, match=r"'scale': 4.0.*'scale': 2.0"):
        tiny_trainer(max_steps=1).fit(module(scale=2.0), datamodule=data)


class HalfOfTheBatch(FlowTrajectoryDistillation):
    """An objective whose estimates are of some rows only."""

    def forward(self, velocity, pair, **options):
        part = LatentPair(*(tensor[1:] for tensor in pair))
        output = super().forward(velocity, part, **{**options, "times": options["times"][1:]})
        return output._replace(rows=torch.arange(1, len(pair.hr)))


def test_targets_stay_row_aligned_when_an_objective_takes_part_of_the_batch():
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, sr_image, hr_image):
            seen["hr"] = hr_image
            return (sr_image - hr_image).square().mean()

    module = tiny_module(losses={"spy": ImageTerm(Spy())}, objective=HalfOfTheBatch(0.25))
    tiny_trainer(max_steps=1).fit(module, loader(1))
    torch.testing.assert_close(seen["hr"], tiny_batch(seed=0).hr_image[1:], rtol=0, atol=1e-6)


def test_an_objective_that_permutes_the_batch_trains_on_the_right_photos():
    seen = {}

    class Backwards(FlowTrajectoryDistillation):
        def forward(self, velocity, pair, **options):
            flipped = LatentPair(*(tensor.flip(0) for tensor in pair))
            output = super().forward(velocity, flipped, **options)
            return output._replace(rows=torch.arange(len(pair.hr)).flip(0)) if self.says else output

    class Spy(torch.nn.Module):
        def forward(self, sr_image, hr_image):
            seen["hr"] = hr_image
            return (sr_image - hr_image).square().mean()

    module = tiny_module(losses={"spy": ImageTerm(Spy())}, objective=Backwards(0.25))
    module.objective.says = True
    tiny_trainer(max_steps=1).fit(module, loader(1))
    assert torch.equal(seen["hr"], tiny_batch(seed=0).hr_image.flip(0))
    module.objective.says = False
    with pytest.raises(ValueError, match="rows"):
        tiny_trainer(max_steps=1).fit(module, loader(1))


def test_an_image_distance_is_handed_to_the_objective():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, a, b):
            seen.append(a.shape)
            return (a - b).abs().mean()

    module = tiny_module(losses={}, distance=Spy())
    one_step_terms(module, tiny_batch())
    assert seen == [(2, 3, 32, 32)]


def adapters() -> FluxBackbone:
    """A student and a stage-1 teacher, as adapters on one base."""
    torch.manual_seed(0)
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    backbone.add_lora(rank=2)
    backbone.add_lora("teacher", rank=2, trainable=False)
    return backbone


@pytest.mark.parametrize(
    "objective",
    [RectifiedSRFlow(), FlowTrajectoryDistillation(0.3), ConsistencySRFlow(flow_share=0), ConsistencySRFlow()],
    ids=["stage 1", "ftd", "consistency", "stage 2"],
)
def test_an_image_distance_compares_with_the_photos_of_the_very_rows(objective):
    """An autoencoder that loses details: its decoded latents are no target."""

    class Lossy(PixelAutoencoder):
        def encode(self, image):
            return super().encode((image * 4).round() / 4)

    class Spy(torch.nn.Module):
        def forward(self, sr_image, hr_image):
            seen.append(hr_image)
            return (sr_image - hr_image).square().mean()

    seen: list[torch.Tensor] = []
    batch = tiny_batch(size=6)
    module = tiny_module(
        losses={}, objective=objective, distance=Spy(), autoencoder=Lossy(2), lora=None, backbone=adapters()
    )
    _, _ = module.flow(module.encode(batch))
    of_photos = [image for image in seen if all((row == batch.hr_image).flatten(1).all(dim=1).any() for row in image)]
    # All but the distance of two estimates, which is the consistency term's.
    assert len(of_photos) == len(seen) - isinstance(objective, ConsistencySRFlow) > 0
    assert not torch.equal(module.autoencoder.decode(module.autoencoder.encode(batch.hr_image)), batch.hr_image)


def test_further_estimates_are_compared_with_the_photos_of_their_rows():
    class Spy(torch.nn.Module):
        def forward(self, sr_image, hr_image):
            seen.append(hr_image)
            return (sr_image - hr_image).square().mean()

    seen: list[torch.Tensor] = []
    term = ImageTerm(Spy(), estimates=True)
    objective = ConsistencySRFlow(flow_share=0.5)
    module = tiny_module(losses={"spy": term}, objective=objective, lora=None, backbone=adapters())
    batch = tiny_batch(size=6)
    output, passes = module.flow(module.encode(batch))
    module.compute_terms(StepOutputs(output, batch.hr_image, module.decode, 2, passes))
    (rows,) = output.estimate_rows
    assert torch.equal(seen[0], batch.hr_image) and torch.equal(seen[1], batch.hr_image[rows]) and 0 < len(rows) < 6


def test_rows_of_a_mixed_batch_are_those_rows_alone():
    """Teacher pairs keep their noise and latents beside photos, whose noise does not depend on their neighbors."""
    batch = tiny_batch(size=4)
    module = tiny_module(losses={})
    latents, noise = torch.randn(2, 2, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    encoded: list[int] = []
    encode = module.autoencoder.encode

    class Counting(PixelAutoencoder):
        def encode(self, image):
            encoded.append(len(image))
            return encode(image)

    module.autoencoder = Counting(2)
    photos = module.encode(batch, step=5)
    encoded.clear()
    mixed = module.encode(batch._replace(hr_latents=latents, noise=noise, pair_rows=(1, 3)), step=5)
    assert encoded == [2, 4]  # the photos' HR, and all LR
    for name, own in (("hr", latents), ("noise", noise)):
        made = getattr(mixed, name)
        assert torch.equal(made[[1, 3]], own)
        assert torch.equal(made[[0, 2]], getattr(photos, name)[[0, 2]])
    assert torch.equal(mixed.lr, photos.lr)
    encoded.clear()
    whole = module.encode(batch._replace(hr_latents=latents.repeat(2, 1, 1, 1), noise=noise.repeat(2, 1, 1, 1)), step=5)
    assert encoded == [4] and torch.equal(whole.hr[:2], latents)


def test_a_teacher_encodes_no_lr():
    pair = tiny_module(losses={}, objective=FlowMatching()).encode(tiny_batch())
    assert pair.lr is None and pair.noise.shape == pair.hr.shape


def test_overfits_one_batch():
    """200 steps on one batch reach 35 dB: the whole chain trains."""
    module = tiny_module(
        lora=None,
        losses={"mse": ImageTerm(MSELoss(), weight=10.0)},
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 5e-3, total_steps=200, pct_start=0.1
        ),
    )
    batch = tiny_batch()
    tiny_trainer(max_steps=200).fit(module, torch.utils.data.DataLoader([batch] * 200, batch_size=None))
    with torch.no_grad():
        assert psnr_y(module(batch.lr_image), batch.hr_image) >= 35


def test_draws_do_not_depend_on_the_number_of_processes(monkeypatch):
    alone = tiny_module()
    whole, wide = tiny_batch(4), alone.encode(tiny_batch(4), step=7)
    parts = []
    for rank in (0, 1):
        module = tiny_module()
        monkeypatch.setattr(type(module), "_place", (rank, 2))
        rows = type(whole)(whole.hr_image[rank::2], whole.lr_image[rank::2], whole.index[rank::2])
        parts.append(module.encode(rows, step=7).noise)
        monkeypatch.undo()
    assert torch.equal(wide.noise[0::2], parts[0]) and torch.equal(wide.noise[1::2], parts[1])


def test_everything_is_logged_by_name():
    module = tiny_module(log_gradient_norms=1)
    trainer = tiny_trainer(max_steps=1)
    trainer.fit(module, loader(1))
    names = {"loss", "flow", "mse", "tv_lpips", "adl", "latent"}
    norms = {f"grad_norm/{name}" for name in names - {"loss"}}
    assert {f"train/{name}" for name in names | norms} <= set(trainer.callback_metrics)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    total = logged["train/flow"] + sum(t.weight * logged[f"train/{n}"] for n, t in module.losses.items())
    assert logged["train/loss"] == pytest.approx(total, rel=1e-6)


def test_validation_measures_against_bicubic():
    module = tiny_module(val_losses={"l1": L1Loss()})
    metrics = tiny_trainer().validate(module, loader(2), verbose=False)[0]
    assert {"val/psnr_y", "val/psnr_y_bicubic", "val/l1"} <= set(metrics)
    batches = [tiny_batch(seed=i) for i in range(2)]
    expected = sum(float(psnr_y(module.enlarge(b.lr_image, (32, 32)), b.hr_image)) for b in batches) / 2
    assert metrics["val/psnr_y_bicubic"] == pytest.approx(expected, rel=1e-5)


def test_a_teacher_trains_and_validates_by_its_flow():
    module = tiny_module(lora=None, losses={}, objective=FlowMatching())
    trainer = tiny_trainer(max_steps=2)
    trainer.fit(module, loader(2), loader(1))
    assert trainer.callback_metrics["val/flow"].isfinite()


@pytest.mark.parametrize("size", [(7, 13), (1, 1), (8, 8), (3, 30)])
def test_any_size_comes_out_four_times_as_large(size):
    module = tiny_module(tile=16).eval()
    with torch.no_grad():
        assert module(torch.rand(1, 3, *size)).shape == (1, 3, 4 * size[0], 4 * size[1])


def test_restoration_is_the_one_step(monkeypatch):
    """x_hat = D(z_L - T_L v(z_L, T_L)), with an oracle velocity exactly the HR image."""
    module, batch = tiny_module(), tiny_batch()
    pair = module.encode(batch)
    monkeypatch.setattr(module, "velocity", lambda: lambda xt, t: (pair.lr - pair.hr) / 0.25)
    torch.testing.assert_close(module(batch.lr_image), batch.hr_image, rtol=0, atol=1e-6)


def test_checkpoints_hold_what_is_trained_and_resume(tmp_path):
    module = tiny_module()
    keep = ModelCheckpoint(tmp_path, save_last=True)
    tiny_trainer(tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[keep]).fit(module, loader(2))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == set(module.trained.parameters()) | {"objective.lr_time"}
    again = tiny_module(objective=FlowTrajectoryDistillation(0.5), seed=0)
    resumed = tiny_trainer(tmp_path, max_epochs=2)
    resumed.fit(again, loader(2), weights_only=True, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.global_step == 4
    assert again.objective.lr_time == 0.25  # what it was trained with
    torch.manual_seed(0)
    straight = tiny_module()
    tiny_trainer(max_steps=4).fit(straight, loader(2))
    for name, tensor in straight.trained.parameters().items():
        torch.testing.assert_close(again.trained.parameters()[name], tensor, rtol=0, atol=0)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer = tiny_trainer(max_steps=1)
    trainer.fit(tiny_module(lora=None), loader(1))
    trainer.save_checkpoint(tmp_path / "full.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint does not fit this model: .* trainable weights are missing"):
        tiny_trainer(max_steps=2).fit(tiny_module(), loader(1), weights_only=True, ckpt_path=tmp_path / "full.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": {"flow": ImageTerm(MSELoss())}}, "'flow'"),
        ({"flow_weight": -1.0}, "-1.0"),
        ({"scale": 0}, "scale .*0"),
        ({"modulation_table": True}, "GridTimes"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_module(**arguments)


def test_nothing_trainable_is_refused_before_training():
    module = tiny_module()
    module.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is trainable: give the backbone a LoRA"):
        tiny_trainer(max_steps=1).fit(module, loader(1))


def test_an_objective_may_log(monkeypatch):
    class Logging(FlowTrajectoryDistillation):
        def forward(self, *args, **options) -> FlowOutput:
            output = super().forward(*args, **options)
            return output._replace(logs={"answer": torch.tensor(42.0)})

    trainer = tiny_trainer(max_steps=1)
    trainer.fit(tiny_module(losses={}, objective=Logging()), loader(1))
    assert trainer.callback_metrics["train/answer"] == 42


class Spied(OneStepSR):
    """Remembers which samples each step saw, and in which epoch's crop."""

    def training_step(self, batch, batch_idx):
        self.__dict__.setdefault("seen", []).append((batch.index.tolist(), float(batch.hr_image.sum())))
        return super().training_step(batch, batch_idx)


# Worker processes take seconds to start: two of the four moments will do.
@pytest.mark.parametrize(("stop", "workers"), [(2, 0), (6, 0), (3, 1), (5, 1)])
def test_a_resumed_training_is_the_uninterrupted_one(photos, tmp_path, stop, workers):
    """Three batches an epoch: stopped in the first, at its end, in the second and at its end; then on to step 8."""
    from fluxsr.data import SRDataModule

    def train(steps, checkpoint=None, **arguments):
        module = tiny_module(losses={"mse": ImageTerm(MSELoss())})
        module.__class__ = Spied
        data = SRDataModule(photos=str(photos), crop=32, batch_size=4, samples_per_image=3, seed=5, num_workers=workers)
        average = EMA(0.9)
        callbacks = [average, *arguments.pop("callbacks", [])]
        trainer = tiny_trainer(tmp_path, max_steps=steps, callbacks=callbacks, **arguments)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        moments = trainer.optimizers[0].state_dict()["state"]
        return module, {
            **{name: weight.detach() for name, weight in module.trained.parameters().items()},
            **{f"average of {name}": value for name, value in average.average.items()},
            **{f"{key} of {index}": value for index, state in moments.items() for key, value in state.items()},
        }

    straight, straight_state = train(8)
    save = ModelCheckpoint(tmp_path, filename="stop", save_on_train_epoch_end=False, every_n_train_steps=stop)
    first, _ = train(stop, enable_checkpointing=True, callbacks=[save])
    second, second_state = train(8, tmp_path / "stop.ckpt")
    assert first.seen + second.seen == straight.seen
    assert straight_state.keys() == second_state.keys()
    for name, value in straight_state.items():
        assert torch.equal(second_state[name], value), name


def test_a_modulation_table_trains_the_same_steps():
    def losses(**arguments):
        module = tiny_module(objective=FlowTrajectoryDistillation(0.25, time_sampler=GridTimes(4)), **arguments)
        trainer = tiny_trainer(max_steps=3)
        trainer.fit(module, loader(3))
        return float(trainer.callback_metrics["train/loss"]), sum(p.numel() for p in module.backbone.parameters())

    whole, tabulated = losses(), losses(modulation_table=True)
    assert tabulated[0] == pytest.approx(whole[0], rel=1e-5)
    assert tabulated[1] < 0.7 * whole[1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flux2_trains_with_every_term_and_its_text_stream_left_out(tmp_path, checkpointing):
    """FTD, image losses and ADL on nano2, the same steps with and without what no token ever flows through."""
    from fluxsr.models import PixelAutoencoder, load_flux

    def train(text_stream: bool):
        torch.manual_seed(0)
        backbone = load_flux(
            "nano2", weights=False, lora_rank=4, text_stream=text_stream, gradient_checkpointing=checkpointing
        )
        perturb(backbone)
        module = tiny_module(lora=None, backbone=backbone, autoencoder=PixelAutoencoder())
        trainer = tiny_trainer(tmp_path, max_steps=2)
        trainer.fit(module, loader(2))
        assert trainer.callback_metrics["train/adl"] > 0
        return module.trained.parameters()

    whole, less = train(True), train(False)
    assert whole.keys() == less.keys() and all(torch.equal(whole[name], less[name]) for name in whole)


def train(seed: int = 0, **arguments) -> dict[str, torch.Tensor]:
    torch.manual_seed(123)
    module = tiny_module(seed=seed)
    tiny_trainer(max_steps=3, **arguments).fit(module, loader(3))
    return {name: tensor.clone() for name, tensor in module.trained.parameters().items()}


def test_one_seed_gives_the_same_weights_bit_for_bit():
    first, second, other = train(), train(), train(seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
