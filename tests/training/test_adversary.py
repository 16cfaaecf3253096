import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.flows import ConsistencySRFlow, FlowTrajectoryDistillation
from fluxsr.losses import MSELoss
from fluxsr.models import FluxBackbone
from fluxsr.training import Adversary, ImageTerm, OneStepSR, StepOutputs
from tests.models.conftest import perturb, tiny_transformer
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


def adversarial_module(adversary=None, *, stage_two: bool = False, losses=None, **arguments) -> OneStepSR:
    """A small module with an adversary, on FTD or on FlowSR's stage 2."""
    torch.manual_seed(0)
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    backbone.add_lora(rank=4)
    if stage_two:
        backbone.add_lora("teacher", rank=4, trainable=False)
    perturb(backbone)
    objective = ConsistencySRFlow() if stage_two else FlowTrajectoryDistillation(0.25)
    losses = {"mse": ImageTerm(MSELoss())} if losses is None else losses
    adversary = Adversary(width=8) if adversary is None else adversary
    return tiny_module(
        lora=None, losses=losses, backbone=backbone, objective=objective, adversary=adversary, **arguments
    )


class Diary(OneStepSR):
    """Remembers the weights of student and heads after every batch."""

    def on_train_batch_end(self, *args):
        self.__dict__.setdefault("pages", []).append(self.weights())

    def weights(self):
        state = {name: p.detach().clone() for name, p in self.trained.parameters().items()}
        heads = {name: p for name, p in state.items() if name.startswith("adversary.")}
        return {name: p for name, p in state.items() if name not in heads}, heads


def kept(module: OneStepSR) -> Diary:
    module.__class__ = Diary
    module.pages = [module.weights()]
    return module


def changed(before: dict, after: dict) -> bool:
    return any(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("stage_two", [False, True])
def test_every_batch_makes_one_step_of_each_and_max_steps_counts_the_students(stage_two):
    module = kept(adversarial_module(stage_two=stage_two))
    trainer = tiny_trainer(max_steps=3, max_epochs=-1)
    trainer.fit(module, loader(2, size=4))
    assert trainer.global_step == 3 and len(module.pages) == 4
    for (student, heads), (next_student, next_heads) in zip(module.pages, module.pages[1:], strict=False):
        assert changed(student, next_student) and changed(heads, next_heads)


def test_accumulation_steps_once_for_several_batches():
    module = kept(adversarial_module(Adversary(width=8, accumulate_grad_batches=2)))
    trainer = tiny_trainer(max_epochs=1)
    trainer.fit(module, loader(5))
    # Batches 2 and 4, and the 5th because it is the last of its epoch.
    assert trainer.global_step == 3
    stepped = [changed(a[0], b[0]) for a, b in zip(module.pages, module.pages[1:], strict=False)]
    assert stepped == [False, True, False, True, True]
    assert stepped == [changed(a[1], b[1]) for a, b in zip(module.pages, module.pages[1:], strict=False)]


def test_each_side_gets_its_own_gradient_only():
    module = adversarial_module()
    pair = module.encode(tiny_batch())
    output, _ = module.flow(pair)
    adversary = module.adversary
    outputs = StepOutputs(output, None, module.decode, 2)
    adversary.generator_loss(adversary.features(adversary.fakes(outputs))).backward()
    student = {n: p.grad for n, p in module.backbone.named_parameters() if p.requires_grad}
    assert all(gradient.norm() > 0 for gradient in student.values())
    assert all(p.grad is None for p in adversary.parameters())
    module.zero_grad()
    adversary.discriminator_loss(adversary.features(adversary.fakes(outputs)), adversary.reals(outputs))[0].backward()
    assert all(p.grad is None for p in module.backbone.parameters())
    assert all(p.grad is not None for p in adversary.heads())


def test_all_latents_that_the_student_estimates_are_fakes():
    module = adversarial_module(stage_two=True)
    output, _ = module.flow(module.encode(tiny_batch(size=4)))
    fakes = module.adversary.fakes(StepOutputs(output, None, module.decode, 2))
    ((estimate, _),) = output.estimates
    assert torch.equal(fakes, torch.cat([output.x0_hat, estimate])) and len(fakes) > 4


def test_in_the_warm_up_only_the_discriminator_hears():
    def trained(adversary):
        module = kept(adversarial_module(adversary))
        tiny_trainer(max_steps=2).fit(module, loader(2))
        return module.pages

    quiet, loud, none = (
        trained(Adversary(width=8, weight=50.0, warmup_steps=1, gradient_clip_val=None)),
        trained(Adversary(width=8, weight=50.0, gradient_clip_val=None)),
        trained(Adversary(width=8, weight=1e-12, gradient_clip_val=None)),
    )
    assert not changed(quiet[1][0], none[1][0]) and changed(quiet[1][0], loud[1][0])
    assert changed(quiet[2][0], none[2][0])  # from the second step on the student hears it
    assert changed(quiet[0][1], quiet[1][1])


def test_the_adaptive_weight_balances_the_gradients_at_the_latents():
    module = adversarial_module(Adversary(weight=0.5, adaptive=True, width=8))
    batch = tiny_batch()
    output, _ = module.flow(module.encode(batch))
    others = 3 * (output.x0_hat - output.x0_target).square().mean()
    adversary = module.adversary
    adversarial = adversary.generator_loss(adversary.features(output.x0_hat))
    weight = adversary.effective_weight(others, adversarial, output.x0_hat)
    norms = [torch.autograd.grad(x, output.x0_hat, retain_graph=True)[0].norm() for x in (others, weight * adversarial)]
    torch.testing.assert_close(norms[1], 0.5 * norms[0], rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="adaptive=True balances against terms on the student's estimate"):
        adversary.effective_weight(output.loss, adversarial, output.x0_hat)


def test_r1_and_both_losses_are_logged():
    module = adversarial_module(Adversary(width=8, r1_weight=0.1))
    trainer = tiny_trainer(max_steps=1)
    trainer.fit(module, loader(1))
    names = {"adversarial", "adversarial_weight", "discriminator", "logits_real", "logits_fake", "r1", "flow", "loss"}
    assert {f"train/{name}" for name in names} <= set(trainer.logged_metrics)
    assert all(value.isfinite() for value in trainer.logged_metrics.values())


def test_the_heads_learn_to_tell_real_from_fake():
    """With the student held still, the discriminator's loss falls well below the 2 of one that knows nothing."""
    adversary = Adversary(width=16, optimizer=lambda heads: torch.optim.AdamW(heads, lr=3e-2))
    module = adversarial_module(adversary, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer = tiny_trainer(max_epochs=30)
    trainer.fit(module, loader(1, size=4))
    assert trainer.logged_metrics["train/discriminator"] < 0.5
    assert trainer.logged_metrics["train/logits_real"] > 0 > trainer.logged_metrics["train/logits_fake"]


def test_both_optimizers_resume_from_a_checkpoint(tmp_path):
    batches = loader(3, size=4)
    make = lambda: kept(adversarial_module(Adversary(width=8, r1_weight=0.1), stage_two=True))
    straight = make()
    tiny_trainer(max_steps=6).fit(straight, batches)

    first = make()
    save = ModelCheckpoint(tmp_path, filename="half", save_on_train_epoch_end=False, every_n_train_steps=3)
    tiny_trainer(tmp_path, max_steps=3, enable_checkpointing=True, callbacks=[save]).fit(first, batches)
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert len(checkpoint["optimizer_states"]) == 2
    assert any(key.startswith("adversary.discriminator.heads") for key in checkpoint["state_dict"])
    assert not any("base_layer" in key for key in checkpoint["state_dict"])

    second = make()
    tiny_trainer(tmp_path, max_steps=6).fit(second, batches, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for expected, resumed in zip(straight.pages[-1], second.pages[-1], strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-7)


def test_the_students_scheduler_steps_with_it():
    module = adversarial_module(scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
    trainer = tiny_trainer(max_steps=3)
    trainer.fit(module, loader(3))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 8)
    assert trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0.0}, "weight.*0.0"),
        ({"r1_weight": -1.0}, "-1.0 and 0"),
        ({"warmup_steps": -1}, "0.0 and -1"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches"),
    ],
)
def test_bad_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adversary(**arguments)


def test_what_cannot_be_done_is_refused_before_training():
    with pytest.raises(ValueError, match="Conv2d"):
        OneStepSR(
            torch.nn.Conv2d(12, 12, 1), tiny_module().autoencoder, FlowTrajectoryDistillation(), adversary=Adversary()
        )
    module = adversarial_module()
    trainer = tiny_trainer(max_steps=1)
    trainer.strategy.precision_plugin.precision = "16-mixed"
    with pytest.raises(ValueError, match="float16 needs; take precision bf16-mixed"):
        trainer.fit(module, loader(1))
