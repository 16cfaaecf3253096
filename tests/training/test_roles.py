import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fluxsr.flows import ConsistencySRFlow, FlowTrajectoryDistillation, RectifiedSRFlow, Role
from fluxsr.losses import MSELoss, MSELPIPSLoss
from fluxsr.models import FluxBackbone, PixelAutoencoder, load_flux
from fluxsr.training import ImageTerm, OneStepSR
from fluxsr.training.roles import Roles
from fluxsr.training.terms import gradient_norms
from tests.models.conftest import both_families, perturb, tiny_transformer
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


def stage_two(*, lora: int | None = 4, decay: float = 0.9, family: str = "flux.1", **arguments) -> OneStepSR:
    """A small FlowSR stage 2: adapters on one base, or a model trained in full with copies."""
    torch.manual_seed(0)
    backbone = FluxBackbone(tiny_transformer(family=family, in_channels=48))
    if lora is not None:
        backbone.add_lora(rank=lora)
        backbone.add_lora("teacher", rank=2, trainable=False)
        perturb(backbone)
    else:
        arguments.setdefault("teacher", FluxBackbone(tiny_transformer(seed=1, family=family, in_channels=48)))
    arguments.setdefault("objective", ConsistencySRFlow(target_decay=decay))
    return tiny_module(lora=None, losses={}, backbone=backbone, **arguments)


def parameters_of(module, role):
    return {name: p.detach().clone() for name, p in module.named_parameters() if f".{role}." in name}


def test_roles_are_adapters_on_one_base_and_cost_no_second_one():
    backbone = FluxBackbone(tiny_transformer(in_channels=48))
    base = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    size = sum(parameter.nbytes for parameter in backbone.parameters())
    backbone.add_lora(rank=4)
    adapter = sum(parameter.nbytes for parameter in backbone.parameters()) - size
    backbone.add_lora("teacher", rank=4, trainable=False)
    module = OneStepSR(backbone, tiny_module().autoencoder, ConsistencySRFlow())
    assert sum(parameter.nbytes for parameter in module.parameters()) == size + 3 * adapter
    assert len(module.roles.models) == 0
    tiny_trainer(max_steps=2).fit(module, loader(2))
    now = {n.replace(".base_layer", ""): p for n, p in backbone.named_parameters() if ".lora_" not in n}
    assert all(torch.equal(now[name], parameter) for name, parameter in base.items())


@pytest.mark.parametrize("lora", [4, None])
def test_the_target_starts_as_the_student(lora):
    module, (xt, t) = stage_two(lora=lora), (torch.randn(2, 12, 8, 8), torch.rand(2))
    with torch.no_grad():
        torch.testing.assert_close(module.roles.velocity("target")(xt, t), module.backbone(xt, t), rtol=0, atol=0)
        assert not torch.allclose(module.roles.velocity("teacher")(xt, t), module.backbone(xt, t))


def test_an_alpha_of_its_own_survives_the_copy():
    backbone = FluxBackbone(tiny_transformer())
    backbone.add_lora(rank=4, alpha=7.0)
    perturb(backbone)
    backbone.adapters.copy("student", "target")
    xt, t = torch.randn(2, 4, 8, 8), torch.rand(2)
    torch.testing.assert_close(backbone.as_role("target")(xt, t), backbone(xt, t), rtol=0, atol=0)


@pytest.mark.parametrize(("lora", "family"), [(4, "flux.1"), (None, "flux.1"), (4, "flux.2"), (None, "flux.2")])
def test_only_the_student_learns_and_the_teacher_stays(lora, family):
    module = stage_two(lora=lora, family=family)
    teacher = parameters_of(module, "teacher")
    trained = {name: p.detach().clone() for name, p in module.trained.parameters().items()}
    assert teacher and not any("teacher" in name or "target" in name for name in trained)
    tiny_trainer(max_steps=2).fit(module, loader(2, size=4))
    assert all(torch.equal(p, teacher[name]) for name, p in parameters_of(module, "teacher").items())
    assert all(not torch.equal(p, trained[name]) for name, p in module.trained.parameters().items())


@pytest.mark.parametrize("lora", [4, None])
def test_the_target_after_k_steps_is_the_closed_form(lora):
    decay, steps, weights = 0.9, 4, []

    class Remember(OneStepSR):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            weights.append(state())

    module = stage_two(lora=lora, decay=decay)
    module.__class__ = Remember
    role = "student" if lora else None
    state = lambda: {name: p.detach().clone() for name, p in module.roles._weights(role).items()}
    start = state()
    tiny_trainer(max_steps=steps, accumulate_grad_batches=2).fit(module, loader(2 * steps))
    assert len(weights) == steps
    # target_k = d^k w_0 + (1 - d) sum_i d^(k - i) w_i
    for name, value in module.roles._weights("target").items():
        expected = decay**steps * start[name] + (1 - decay) * sum(
            decay ** (steps - 1 - i) * weights[i][name] for i in range(steps)
        )
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lora", [4, None])
def test_checkpoints_hold_student_and_target_and_resume(lora, tmp_path):
    straight = stage_two(lora=lora)
    batches = loader(3, size=4)
    tiny_trainer(tmp_path, max_steps=6).fit(straight, batches)

    first = stage_two(lora=lora)
    save = ModelCheckpoint(tmp_path, filename="half", save_on_train_epoch_end=False, every_n_train_steps=3)
    tiny_trainer(tmp_path, max_steps=3, enable_checkpointing=True, callbacks=[save]).fit(first, batches)
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert any("target" in key for key in saved) and not any("teacher" in key for key in saved)
    assert not any("base_layer" in key for key in saved)

    second = stage_two(lora=lora)
    trainer = tiny_trainer(tmp_path, max_steps=6)
    trainer.fit(second, batches, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for role in ("target", "student" if lora else None):
        for name, value in straight.roles._weights(role).items():
            torch.testing.assert_close(second.roles._weights(role)[name], value, rtol=1e-5, atol=1e-7)


def test_a_stage_one_file_becomes_the_teacher_on_the_same_base(tmp_path):
    stage_one = load_flux("nano", lora_rank=2)
    perturb(stage_one)
    stage_one.save(tmp_path / "stage1.safetensors")
    backbone = load_flux(
        "nano", lora_weights=str(tmp_path / "stage1.safetensors"), teacher_lora=str(tmp_path / "stage1.safetensors")
    )
    parts = {"backbone": backbone, "autoencoder": PixelAutoencoder()}
    module = tiny_module(lora=None, losses={}, **parts, objective=ConsistencySRFlow())
    xt, t = torch.randn(1, 48, 8, 8), torch.rand(1)
    with torch.no_grad():
        expected = stage_one(xt, t)
        for velocity in (backbone, module.roles.velocity("teacher"), module.roles.velocity("target")):
            torch.testing.assert_close(velocity(xt, t), expected)
    assert {name.split(".")[-2] for name, p in backbone.named_parameters() if p.requires_grad} == {"student"}


def test_teachers_that_do_not_fit_are_refused_before_training(tmp_path):
    other = FluxBackbone(tiny_transformer())
    other.add_lora(rank=2)
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"made for another base|does not fit this model"):
        load_flux("nano", teacher_lora=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=r"none.safetensors does not exist"):
        load_flux("nano", teacher_lora=str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match="needs a frozen base"):
        load_flux("nano", trainable="full", teacher_lora=str(tmp_path / "other.safetensors"))


def test_a_missing_teacher_and_one_too_many_are_named():
    with pytest.raises(ValueError, match=r"needs a teacher.*load_flux\(teacher_lora=\.\.\.\)"):
        tiny_module(objective=ConsistencySRFlow())
    with pytest.raises(ValueError, match="a teacher was given, but this objective uses none"):
        tiny_module(objective=RectifiedSRFlow(), teacher=FluxBackbone(tiny_transformer(in_channels=48)))


@pytest.mark.parametrize(
    "wrong",
    [
        ("target",),
        (Role("target", 2.0),),
        (Role("target", -0.1),),
        (Role("target", float("nan")),),
        (Role("target", 1),),
        (Role("target", "0.9"),),
        (Role("target", 0.9), Role("target", 0.5)),
        (Role("student"),),
        (Role(""),),
    ],
    ids=repr,
)
def test_roles_that_would_make_a_wrong_average_are_refused(wrong):
    class Asking(RectifiedSRFlow):
        roles = wrong

    with pytest.raises(ValueError, match=r"Role\("):
        tiny_module(objective=Asking())


def test_any_module_can_be_the_student():
    """A network that is no FLUX is copied whole, with its buffers."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(12, 12, 3, padding=1), torch.nn.BatchNorm2d(12)

        def forward(self, xt, t):
            return self.norm(self.conv(xt)) * t.reshape(-1, 1, 1, 1)

    net = Net()
    roles = Roles(net, (Role("teacher"), Role("target", decay=0.75)), copy.deepcopy(net))
    with torch.no_grad():
        net.conv.weight.add_(1)
        net.norm.running_mean.add_(1)
    before = roles.models["target"].conv.weight.clone()
    roles.follow()
    torch.testing.assert_close(roles.models["target"].conv.weight, before + 0.25)
    assert torch.equal(roles.models["target"].norm.running_mean, net.norm.running_mean)
    assert not any(parameter.requires_grad for parameter in roles.parameters())


def test_every_term_of_stage_two_reaches_the_student_through_the_decoder():
    module = stage_two(distance=MSELPIPSLoss(net="nano"))
    pair = module.encode(tiny_batch(size=4))
    output, _ = module.flow(pair)
    norms = gradient_norms(
        {"flow": (1.0, output.loss), **{k: (1.0, e.sum()) for k, (e, _) in enumerate(output.estimates)}},
        module.trained.parameters().values(),
    )
    assert all(norm.isfinite() and norm > 0 for norm in norms.values())
    assert set(output.logs) == {"sr_flow", "consistency", "hr_regularisation"}


def test_an_image_term_can_look_at_every_estimate():
    module = stage_two()
    both = ImageTerm(MSELoss(), estimates=True)
    one = ImageTerm(MSELoss())
    from fluxsr.training import StepOutputs

    batch = tiny_batch(size=4)
    output, _ = module.flow(module.encode(batch))
    outputs = StepOutputs(output, batch.hr_image, module.autoencoder.decode, module.autoencoder.downsample)
    ((estimate, target),) = output.estimates
    decode = module.autoencoder.decode
    expected = (one(outputs) + (decode(estimate) - decode(target).clamp(0, 1)).square().mean()) / 2
    torch.testing.assert_close(both(outputs), expected)


@pytest.mark.parametrize("objective", [FlowTrajectoryDistillation(0.25), RectifiedSRFlow(velocity_weight=1.0)])
@both_families
def test_objectives_follow_each_other_by_files(tmp_path, objective, family):
    """FTD, or FlowSR's first stage, then consistency from its weights: any chain of objectives works."""
    first = tiny_module(lora=4, losses={}, objective=objective, family=family)
    tiny_trainer(max_steps=1).fit(first, loader(1))
    first.backbone.save(tmp_path / "first.safetensors")
    backbone = FluxBackbone(tiny_transformer(family=family, in_channels=48))
    backbone.load_lora(tmp_path / "first.safetensors")
    backbone.load_lora(tmp_path / "first.safetensors", "teacher", trainable=False)
    second = tiny_module(lora=None, losses={}, backbone=backbone, objective=ConsistencySRFlow())
    tiny_trainer(max_steps=1).fit(second, loader(1, size=4))


def test_an_average_of_bfloat16_weights_moves():
    """It is kept in float32: a step of a thousandth is nothing in bfloat16."""
    student = torch.nn.Linear(4, 4, bias=False).bfloat16()
    roles = Roles(student, (Role("target", decay=0.999),))
    with torch.no_grad():
        student.weight.mul_(1.5)
    start = roles.models["target"].weight.clone()
    for _ in range(500):
        roles.follow()
    moved = (roles.models["target"].weight - start).detach().norm() / (student.weight.float() - start).norm()
    assert float(moved) == pytest.approx(1 - 0.999**500, rel=0.01)
