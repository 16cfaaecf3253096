"""What every loss keeps: under each default dtype, in each device context, in each mode, inside each wrapper."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fluxsr.losses import (
    AttentionDiversificationLoss,
    AttentionMapDiversificationLoss,
    CharbonnierLoss,
    CLIPQualityLoss,
    DISTSLoss,
    L1Loss,
    LPIPSLoss,
    MSELoss,
    MSELPIPSLoss,
    PeriodicityLoss,
    ScoreLoss,
    TVLPIPSLoss,
)
from tests.losses.test_quality import clip_folder  # noqa: F401 (a fixture)

SIDE = 32
NAMES = (
    *(
        "L1Loss",
        "MSELoss",
        "CharbonnierLoss",
        "PeriodicityLoss",
        "LPIPSLoss",
        "LPIPSLoss squeeze",
        "TVLPIPSLoss",
        "MSELPIPSLoss",
        "DISTSLoss",
    ),
    *("ScoreLoss", "CLIPQualityLoss", "AttentionDiversificationLoss", "AttentionMapDiversificationLoss"),
)
CONTEXTS: dict[str, Callable[[], Any]] = {
    "none": nullcontext,
    "cpu": lambda: torch.device("cpu"),
    "meta": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def scorer() -> nn.Module:
    """Has what must not move: batch statistics and dropout. Built in float32, as whoever hands one over would."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 1, 1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers)


class Case(NamedTuple):
    """How a loss is made, and what it is called with: the first tensor gets the gradient."""

    make: Callable[[], nn.Module]
    call: Callable[[nn.Module, Tensor], Tensor]
    first: Tensor


@pytest.fixture(scope="module")
def dists_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "weights.pt"
    generator = torch.Generator().manual_seed(0)
    torch.save({name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ("alpha", "beta")}, path)
    return path


@pytest.fixture(scope="module")
def cases(random_lpips, dists_heads: Path, clip_folder) -> dict[str, Case]:  # noqa: F811
    generator = torch.Generator().manual_seed(1)
    sr_image, hr_image = torch.rand(2, 2, 3, SIDE, SIDE, generator=generator)
    tokens = torch.randn(2, 6, 8, generator=generator)
    maps = torch.randn(2, 2, 6, 6, generator=generator).mul(4).softmax(dim=-1)
    squeeze, vgg = random_lpips("squeeze")[1], random_lpips("vgg")[1]
    with torch.random.fork_rng():
        judge = scorer()
    makers: dict[str, Callable[[], nn.Module]] = {
        "L1Loss": L1Loss,
        "MSELoss": MSELoss,
        "CharbonnierLoss": CharbonnierLoss,
        "PeriodicityLoss": lambda: PeriodicityLoss(4),
        "LPIPSLoss": lambda: LPIPSLoss("nano"),
        "LPIPSLoss squeeze": lambda: LPIPSLoss("squeeze", squeeze),
        "TVLPIPSLoss": lambda: TVLPIPSLoss(net="nano"),
        "MSELPIPSLoss": lambda: MSELPIPSLoss(net="nano"),
        "DISTSLoss": lambda: DISTSLoss(vgg, dists_heads),
        "ScoreLoss": lambda: ScoreLoss(copy.deepcopy(judge)),
        "CLIPQualityLoss": lambda: CLIPQualityLoss(str(clip_folder)),
        "AttentionDiversificationLoss": AttentionDiversificationLoss,
        "AttentionMapDiversificationLoss": AttentionMapDiversificationLoss,
    }

    def on_images(loss: nn.Module, image: Tensor) -> Tensor:
        return loss(image, hr_image.to(image))

    def on_layers(loss: nn.Module, layer: Tensor) -> Tensor:
        return loss([layer, layer.flip(1)])

    made = {name: Case(make, on_images, sr_image) for name, make in makers.items()}
    for name, layer in (("AttentionDiversificationLoss", tokens), ("AttentionMapDiversificationLoss", maps)):
        made[name] = Case(makers[name], on_layers, layer)
    return made


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def value_and_gradient(case: Case, loss: nn.Module, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    leaf = (case.first if first is None else first).clone().requires_grad_()
    value = case.call(loss, leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def tensors(loss: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*loss.parameters(), *loss.buffers()) if tensor.is_floating_point()]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_built_anywhere_it_is_the_same_loss(case: Case, dtype: torch.dtype, context: str) -> None:
    reference = case.make()
    if isinstance(reference, ScoreLoss) and context == "inference":
        pytest.skip("a scorer is built by its owner")
    random_numbers = torch.get_rng_state()
    torch.set_default_dtype(dtype)
    try:
        with CONTEXTS[context]():
            loss = case.make()
        assert torch.get_default_dtype() == dtype
        value = None if context == "meta" else case.call(loss, case.first)  # used under that dtype, too
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert {tensor.dtype for tensor in tensors(loss)} <= {torch.float32}
    if context != "meta":
        assert torch.equal(value, case.call(reference, case.first))
        assert all(torch.equal(a, b) for a, b in zip(tensors(loss), tensors(reference), strict=True))
        assert torch.equal(value_and_gradient(case, loss)[1], value_and_gradient(case, reference)[1])
    elif not isinstance(loss, ScoreLoss):  # a scorer is where its owner made it
        assert all(tensor.is_meta for tensor in tensors(loss))
        assert case.call(loss, case.first.to("meta")).is_meta


class Owner(LightningModule):
    """A model that holds a loss beside what it trains."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.student = nn.Linear(2, 2)
        self.loss = loss

    def forward(self, first: Tensor, case: Case) -> Tensor:
        return case.call(self.loss, self.student(first.flatten(0, -2)[:, :2]).mean() * 0 + first)


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def saved_whole(module: nn.Module) -> nn.Module:
    torch.save(module, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda owner: owner,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "save": saved_whole,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_whoever_owns_it_it_is_not_trained_saved_or_rounded(case: Case, wrapper: str) -> None:
    owner = WRAPPERS[wrapper](Owner(case.make()))
    expected, gradient = value_and_gradient(case, case.make())
    owner.train()
    owner.unfreeze()
    owner.requires_grad_(True)
    for parameter in owner.loss.parameters():
        parameter.requires_grad = True
    assert not any(parameter.requires_grad for parameter in owner.loss.parameters())
    optimizer = torch.optim.SGD(owner.parameters(), lr=1.0, weight_decay=1.0)
    for _ in range(2):
        owner(case.first, case).backward()
        optimizer.step()
    found = value_and_gradient(case, owner.loss)
    assert torch.equal(found[0], expected) and torch.equal(found[1], gradient)
    assert set(owner.state_dict()) == {"student.weight", "student.bias"}
    owner.load_state_dict(owner.state_dict(), strict=True)
    owner.to(torch.bfloat16).double().half()
    assert {tensor.dtype for tensor in tensors(owner.loss)} <= {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        value = case.call(owner.loss, case.first)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


def test_float64_is_computed_in_float64(case: Case) -> None:
    loss = case.make()
    first = case.first.double()
    value, gradient = value_and_gradient(case, loss, first)
    with torch.no_grad():
        assert case.call(loss, first).dtype == value.dtype == gradient.dtype == torch.float64
    plain = copy.deepcopy(loss)
    for module in plain.modules():
        if hasattr(module, "network"):
            module.network.net.double()
    torch.testing.assert_close(value, case.call(plain, first), rtol=1e-12, atol=1e-12)
    # Along one direction, by central differences: a whole gradcheck would take minutes.
    step = torch.randn(first.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1e-6
    with torch.no_grad():
        slope = (case.call(loss, first + step) - case.call(loss, first - step)) / 2
    torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-3, atol=1e-11)


def test_per_image_values_sum_and_mean_agree(case: Case) -> None:
    loss = case.make()
    values = {}
    for reduction in ("none", "sum", "mean"):
        for module in loss.modules():
            if hasattr(module, "reduction"):
                module.reduction = reduction
        values[reduction] = case.call(loss, case.first)
    each = torch.stack([one_image(case, loss, index) for index in range(2)])
    torch.testing.assert_close(values["none"], each, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(values["none"].sum(), values["sum"])
    torch.testing.assert_close(values["none"].mean(), values["mean"])


def one_image(case: Case, loss: nn.Module, index: int) -> Tensor:
    """The loss of one image of the batch, by a batch in which it stands in both places, against its own reference."""
    rows = torch.tensor([index, index])
    if "Attention" in type(loss).__name__:
        return case.call(loss, case.first[rows])
    held: list[Tensor] = []

    def spy(image: Tensor, reference: Tensor) -> Tensor:
        held.append(loss(image[rows], reference[rows]))
        return held[0]

    case.call(spy, case.first)  # type: ignore[arg-type]
    return held[0]


def test_torch_func_gets_the_same_gradient(case: Case) -> None:
    loss = case.make()
    expected = value_and_gradient(case, loss)[1]
    found = torch.func.grad(lambda first: case.call(loss, first))(case.first)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_compiled_it_gives_the_same(case: Case) -> None:
    torch.compiler.reset()
    loss = case.make()
    compiled = torch.compile(loss, backend="aot_eager")
    expected, gradient = value_and_gradient(case, loss)
    value, found = value_and_gradient(case, compiled)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-7)


def test_exported_it_gives_the_same(case: Case) -> None:
    loss = case.make()
    held: list[tuple[Any, ...]] = []
    case.call(lambda *args: held.append(args) or torch.zeros(()), case.first)  # type: ignore[arg-type, func-returns-value]
    program = torch.export.export(loss, held[0])
    torch.testing.assert_close(program.module()(*held[0]), loss(*held[0]))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory):
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("ddp") / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_in_data_parallel_training(case: Case, one_process: None) -> None:
    owner = Owner(case.make())
    owner.requires_grad_(True)
    parallel = DistributedDataParallel(owner)
    parallel(case.first, case).backward()
    assert owner.student.weight.grad is not None
    assert all(parameter.grad is None for parameter in owner.loss.parameters())
    assert torch.equal(case.call(owner.loss, case.first), case.call(case.make(), case.first))
