"""Our LPIPS and DISTS against torchmetrics', with the same weights in both."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fluxsr.losses import DISTSLoss, LPIPSLoss


@pytest.mark.parametrize(("net", "file"), [("alex", "alexnet_features_fp32.pth"), ("vgg", "vgg16_features_fp16.pth")])
def test_lpips_is_torchmetrics(backbones, net, file, pair):
    from torchmetrics.functional.image.lpips import _LPIPS

    # torchmetrics takes no weights, and would download torchvision's: its net is made at random and filled here.
    theirs = _LPIPS(pretrained=True, net=net, pnet_rand=True, use_dropout=True, eval_mode=True)
    state = torch.load(backbones / file, weights_only=True)
    own = theirs.net.state_dict()
    theirs.net.load_state_dict({name: state["features." + name.split(".", 1)[1]].float() for name in own})
    sr_image, hr_image = pair
    with torch.no_grad():
        expected = theirs(sr_image, hr_image, normalize=True).mean()
        assert float(LPIPSLoss(net, backbones)(sr_image, hr_image)) == pytest.approx(float(expected), abs=1e-6)


def test_dists_is_torchmetrics(assets, backbones, pair, monkeypatch):
    dists = pytest.importorskip("torchmetrics.functional.image.dists", reason="torchmetrics before 1.8 has no DISTS")
    from torchvision.models.vgg import cfgs, make_layers

    state = torch.load(backbones / "vgg16_features_fp16.pth", weights_only=True)

    def without_a_download(weights):
        features = make_layers(cfgs["D"])
        features.load_state_dict({name.removeprefix("features."): tensor.float() for name, tensor in state.items()})
        return SimpleNamespace(features=features)

    monkeypatch.setattr("torchmetrics.functional.image.dists.vgg16", without_a_download)
    theirs = dists.DISTSNetwork()
    with torch.no_grad():
        expected = theirs(*pair).mean()
        assert float(DISTSLoss(backbones, assets / "heads")(*pair)) == pytest.approx(float(expected), abs=1e-5)
