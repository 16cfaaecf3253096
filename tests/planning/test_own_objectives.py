"""Objectives of one's own that choose rows by value: they train, and they are planned or refused by the operation's name."""

from __future__ import annotations

import pytest
import torch

from fluxsr.data import SRDataModule
from fluxsr.flows import FlowOutput, FlowTrajectoryDistillation
from fluxsr.ledger import NotPlannable
from fluxsr.losses import MSELoss
from fluxsr.planning import Experiment, Settings, make_plan
from fluxsr.training import ImageTerm
from tests.training.conftest import loader, tiny_batch, tiny_module, tiny_trainer


class LateRows(FlowTrajectoryDistillation):
    """Trains the later rows twice as much, chosen by the value of their times, with a bare tensor of times."""

    def forward(self, velocity, pair, *, times=None, **options):
        hr, lr, noise = pair.check("lr", "noise")
        late = times > 0.5
        xt = self.path(lr, noise, times)
        error = lr - self.lr_time * velocity(xt, times) - hr
        weight = 1 + late.to(error).reshape(-1, 1, 1, 1) * times.to(error).reshape(-1, 1, 1, 1)
        loss = (weight * error.square()).mean() + error[late].square().sum() / error.numel()
        rows = late.nonzero().flatten()
        x0_hat = self.restore(velocity, lr[rows])
        return FlowOutput(loss, x0_hat, hr[rows], restoration_pass=1, rows=rows)


class RowsByContent(FlowTrajectoryDistillation):
    """Looks at the latents themselves, which a plan has not."""

    def forward(self, velocity, pair, **options):
        bright = pair.hr.mean(dim=(1, 2, 3)) > 0
        output = super().forward(velocity, pair, **options)
        return output._replace(loss=output.loss + output.x0_hat[bright].sum())


def module(objective):
    return tiny_module(objective=objective, losses={"mse": ImageTerm(MSELoss(), crop=16)})


def plan(made, **arguments):
    data = SRDataModule(photos="somewhere", crop=32, batch_size=4)
    return make_plan(Experiment(made, data, Settings(**arguments)))


def test_rows_chosen_by_their_times_train_and_plan():
    trained = module(LateRows(0.25))
    tiny_trainer(max_steps=2).fit(trained, loader(2, size=4))
    result = plan(module(LateRows(0.25)), precision="bf16-mixed")
    assert result.peak_bytes > 0 and {phase.phase for phase in result.phases} >= {"encode", "flow", "decode", "losses"}


def test_the_rows_count_as_many_as_were_drawn():
    class Half(LateRows):
        def sample_times(self, batch_size, *, generator=None):
            return torch.tensor([0.3, 0.4, 0.6, 0.7])

    class All(LateRows):
        def sample_times(self, batch_size, *, generator=None):
            return torch.full((4,), 0.7)

    half, all_rows = plan(module(Half(0.25))), plan(module(All(0.25)))
    assert half.flops_per_step < all_rows.flops_per_step and half.peak_bytes < all_rows.peak_bytes


def test_what_needs_values_is_named_with_its_place():
    tiny_trainer(max_steps=1).fit(module(RowsByContent(0.25)), loader(1))
    with pytest.raises(NotPlannable) as caught:
        plan(module(RowsByContent(0.25)))
    assert caught.value.operation == "aten.index"
    assert "test_own_objectives.py:" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("look", "operation"),
    [
        (lambda hr: float(hr.numpy().sum()), "Tensor.numpy"),
        (lambda hr: float((hr.mean(dim=(1, 2, 3)).cpu() > 0).sum()), "aten._to_copy"),
        (lambda hr: float(hr.mean()), "aten._local_scalar_dense"),
    ],
    ids=["numpy", "cpu", "float"],
)
def test_every_way_to_look_at_values_is_named(look, operation):
    class Looking(FlowTrajectoryDistillation):
        def forward(self, velocity, pair, **options):
            output = super().forward(velocity, pair, **options)
            return output._replace(loss=output.loss * (1 + look(pair.hr)))

    with pytest.raises(NotPlannable) as caught:
        plan(module(Looking(0.25)))
    assert caught.value.operation == operation and "test_own_objectives.py:" in str(caught.value)


def test_planning_leaves_the_module_and_pytorch_as_they_were():
    before = torch.autocast, torch.clear_autocast_cache, torch.autograd.has_torch_function
    made = module(FlowTrajectoryDistillation())
    plan(made)
    assert not {"encode", "flow", "decode", "compute_terms", "optimizer_zero_grad"} & set(vars(made))
    assert "decode" not in vars(made.autoencoder)
    assert before == (torch.autocast, torch.clear_autocast_cache, torch.autograd.has_torch_function)
    assert tiny_batch().hr_image.device.type == "cpu"
