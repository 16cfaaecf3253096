import copy
import sys
from types import SimpleNamespace

import pytest
import torch

from fluxsr.training import AdamW8bit, MuonAdamW
from fluxsr.training.optimizers import student_optimizer


def parameters(device="cpu"):
    return [torch.nn.Parameter(torch.zeros(3, device=device))]


def test_it_is_bitsandbytes_own(monkeypatch):
    """With a stand-in: the real one needs CUDA."""
    made = []
    optimizer = SimpleNamespace(AdamW8bit=lambda params, **options: made.append((params, options)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=optimizer))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weights = parameters()
    AdamW8bit(weights, lr=1e-3, weight_decay=0.1)
    assert made == [(weights, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.1})]


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"AdamW8bit needs the extra quant: pip install 'fluxsr\[quant\]'"):
        AdamW8bit(parameters())
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        AdamW8bit(parameters())


def test_planning_needs_neither(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert "8bit" in type(AdamW8bit(parameters("meta"))).__name__


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.LayerNorm(12), torch.nn.Linear(12, 3))


def train(net: torch.nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = (net(torch.randn(16, 6, generator=generator)) - 1).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.torch("2.9")
def test_matrices_are_muons_and_all_else_is_adamws():
    ours, theirs = model(), model()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    rest = [p for p in theirs.parameters() if p.ndim != 2]
    both = [
        torch.optim.Muon(matrices, momentum=0.9, adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), **options),
    ]
    train(ours, [MuonAdamW(ours.parameters(), momentum=0.9, **options)], 5)
    train(theirs, both, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(next(iter(ours.parameters())), next(iter(model().parameters())))


@pytest.mark.torch("2.9")
def test_a_resumed_muon_goes_on_as_the_uninterrupted_one():
    straight, resumed = model(), model()
    optimizer = MuonAdamW(straight.parameters())
    train(straight, [optimizer], 3)
    resumed.load_state_dict(straight.state_dict())
    again = MuonAdamW(resumed.parameters())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(straight, [optimizer], 3, seed=2)
    train(resumed, [again], 3, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.torch("2.9")
def test_a_schedule_reaches_both_parts_and_a_closure_is_called():
    net = model()
    optimizer = MuonAdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=10)
    assert len({group["lr"] for group in optimizer.param_groups}) == 1 and len(optimizer.param_groups) == 2
    before = [parameter.clone() for parameter in net.parameters()]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    schedule.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (lambda: [torch.nn.Parameter(torch.zeros(3))], "AdamW"),
        (lambda: [], "got none"),
        (lambda: [{"params": [torch.zeros(2, 2)]}], "got dict"),
        (lambda: torch.nn.Linear(2, 2).named_parameters(), "got tuple"),
    ],
)
@pytest.mark.torch("2.9")
def test_parameters_that_it_cannot_train_are_refused(parameters, said):
    with pytest.raises(ValueError, match=said):
        MuonAdamW(parameters())


def test_a_scheduler_that_watches_a_value_is_given_one():
    from lightning.pytorch.cli import ReduceLROnPlateau

    make = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    weights = [torch.nn.Parameter(torch.zeros(2))]
    plain = torch.optim.lr_scheduler.ReduceLROnPlateau
    for mode, watched in (("min", "train/loss"), ("max", "val/psnr_y")):
        plan = student_optimizer(weights, [], make, lambda optimizer, mode=mode: plain(optimizer, mode=mode))
        assert plan["lr_scheduler"]["monitor"] == watched
    plan = student_optimizer(weights, [], make, lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/psnr_y"))
    assert plan["lr_scheduler"]["monitor"] == "val/psnr_y" and plan["lr_scheduler"]["interval"] == "epoch"
