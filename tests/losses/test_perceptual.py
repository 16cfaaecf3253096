from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fluxsr.losses import LPIPSLoss, MSELPIPSLoss, TVLPIPSLoss, load_network
from fluxsr.losses.functional import total_variation_map


def by_hand(net: nn.Module, sr_image: Tensor, hr_image: Tensor, weight_tv: float) -> Tensor:
    tv = net(total_variation_map(sr_image) - 1, total_variation_map(hr_image) - 1)
    return (net(sr_image * 2 - 1, hr_image * 2 - 1) + weight_tv * tv).mean()


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_tv_lpips_equals_the_package_called_twice(net: str, random_lpips, pair: tuple[Tensor, Tensor]) -> None:
    reference, path = random_lpips(net)
    ours, theirs = (pair[0].clone().requires_grad_() for _ in range(2))
    value = TVLPIPSLoss(0.7, net=net, weights=path)(ours, pair[1])
    expected = by_hand(reference, theirs, pair[1], 0.7)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * float(theirs.grad.abs().max()))


def test_tv_lpips_equals_the_package_called_twice_with_real_weights(backbones, random_lpips, pair) -> None:
    net, _ = random_lpips("vgg")
    state = torch.load(backbones / "vgg16_features_fp16.pth", weights_only=True)
    before = {name: value.clone() for name, value in net.net.state_dict().items()}
    net.net.load_state_dict({name: state["features." + name.split(".", 1)[1]].float() for name in before})
    expected = by_hand(net, *pair, weight_tv=0.5)
    net.net.load_state_dict(before)  # the fixture is shared
    assert TVLPIPSLoss(weights=backbones)(*pair).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("net", ["squeeze", "nano"])
def test_equal_images_cost_exactly_nothing(net: str, dtype: torch.dtype, random_lpips, pair) -> None:
    weights = random_lpips(net)[1] if net != "nano" else None
    image = pair[0].to(dtype)
    assert TVLPIPSLoss(net=net, weights=weights)(image, image.clone()).item() == 0


def test_weight_zero_is_lpips_alone(random_lpips, pair) -> None:
    path = random_lpips("squeeze")[1]
    assert torch.equal(TVLPIPSLoss(0, "squeeze", path)(*pair), LPIPSLoss("squeeze", path)(*pair))


def test_an_injected_module_is_called_on_signed_images(pair) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            seen.append((x, y))
            return (x - y).square().mean((1, 2, 3), keepdim=True)

    TVLPIPSLoss(net=Recorder())(*pair)
    (plain, _), (tv, _) = seen
    torch.testing.assert_close(plain, pair[0] * 2 - 1)
    torch.testing.assert_close(tv, total_variation_map(pair[0]) - 1)


def test_published_lpips_of_real_outputs(assets) -> None:
    published = {"Canon_001_LR4": 0.224819, "Canon_011_LR4": 0.244792}
    loss = LPIPSLoss("alex", assets / "backbones")
    folder = assets / "bench" / "realsr10"
    for name, value in published.items():
        sr_image, hr_image = (read(folder / kind / f"{name}.png") for kind in ("osediff", "HR"))
        assert loss(sr_image, hr_image).item() == pytest.approx(value, abs=1e-3)


def read(path) -> Tensor:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TVLPIPSLoss(net="resnet"), "resnet.*squeeze"),
        (lambda: TVLPIPSLoss(weight_tv=-1), "weight_tv=-1"),
        (lambda: TVLPIPSLoss(weight_tv=float("nan")), "weight_tv=nan"),
        (lambda: TVLPIPSLoss("vgg"), "weight_tv='vgg'"),
        (lambda: LPIPSLoss(nn.Identity(), weights="x.pth"), "x.pth"),
    ],
)
def test_user_errors_name_the_value(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_nano_is_never_a_stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.delenv("FLUXSR_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(FileNotFoundError, match=r"(?s)VGG16.*net='nano'"):
        load_network("vgg")


@pytest.mark.parametrize("net", ["vgg", "nano"])
def test_mse_lpips_is_the_weighted_sum(net: str, random_lpips, pair: tuple[Tensor, Tensor]) -> None:
    weights = random_lpips(net)[1] if net == "vgg" else None
    ours, theirs = (pair[0].clone().requires_grad_() for _ in range(2))
    value = MSELPIPSLoss(0.3, net=net, weights=weights)(ours, pair[1])
    expected = (theirs - pair[1]).square().mean() + 0.3 * LPIPSLoss(net, weights)(theirs, pair[1])
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_mse_lpips_refuses_a_weight_that_is_not_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight_lpips="):
        MSELPIPSLoss(weight, net="nano")


def fewer_bits_change_little(make, pair, tolerance: float) -> None:
    """Compare a loss, `make(compute_dtype)`, in bfloat16 with itself in float32: values within `tolerance`, and gradients."""
    values, gradients = [], []
    for compute_dtype in (None, "bfloat16"):
        sr_image = pair[0].clone().requires_grad_()
        value = make(compute_dtype)(sr_image, pair[1])
        value.backward()
        assert value.dtype == sr_image.grad.dtype == torch.float32
        values.append(value.item())
        gradients.append(sr_image.grad.flatten())
    assert values[1] != values[0]  # it did something
    assert values[1] == pytest.approx(values[0], rel=tolerance)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9


@pytest.mark.parametrize("make", [LPIPSLoss, TVLPIPSLoss])
@pytest.mark.parametrize("net", ["vgg", "nano"])
def test_fewer_bits_in_the_convolutions_change_little(make, net, random_lpips, pair) -> None:
    weights = random_lpips(net)[1] if net != "nano" else None
    fewer_bits_change_little(lambda dtype: make(net=net, weights=weights, compute_dtype=dtype), pair, 0.01)


def test_the_surrounding_autocast_changes_nothing(random_lpips, pair) -> None:
    loss = LPIPSLoss(net="vgg", weights=random_lpips("vgg")[1])
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*pair)
    assert torch.equal(inside, loss(*pair))


def test_an_unknown_compute_dtype_is_named() -> None:
    with pytest.raises(ValueError, match="compute_dtype must be bfloat16, float16 or None, got 'bf16'"):
        LPIPSLoss(net="nano", compute_dtype="bf16")


def test_constructors_print_nothing(capfd: pytest.CaptureFixture[str], random_lpips) -> None:
    path = random_lpips("squeeze")[1]
    capfd.readouterr()
    TVLPIPSLoss(net="squeeze", weights=path)
    TVLPIPSLoss(net="nano")
    assert capfd.readouterr() == ("", "")
