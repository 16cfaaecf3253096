import pytest
import torch

from fluxsr.flows import FlowOutput
from fluxsr.losses import AttentionDiversificationLoss, MSELoss
from fluxsr.models import PixelAutoencoder
from fluxsr.training import FeatureTerm, ImageTerm, LatentTerm, StepOutputs


@pytest.fixture
def made(generator):
    """Outputs of a step whose restoration is the target plus noise, with a count of decodings."""
    autoencoder = PixelAutoencoder(downsample=2)
    hr_image = torch.rand(2, 3, 32, 48, generator=generator)
    target = autoencoder.encode(hr_image)
    flow = FlowOutput(
        torch.zeros(()), target + 0.1 * torch.randn(target.shape, generator=generator), target, restoration_pass=0
    )
    decoded = []

    def decode(latents):
        decoded.append(latents.shape)
        return autoencoder.decode(latents)

    features = [[torch.randn(2, 8, 4, generator=generator) for _ in range(3)] for _ in range(2)]
    return StepOutputs(flow, hr_image, decode, 2, features, generator), flow, hr_image, decoded


def test_image_terms_share_one_decoding(made):
    outputs, flow, hr_image, decoded = made
    first, second = ImageTerm(MSELoss())(outputs), ImageTerm(MSELoss(), weight=2.0)(outputs)
    assert len(decoded) == 1
    expected = (PixelAutoencoder(downsample=2).decode(flow.x0_hat) - hr_image).square().mean()
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, expected)  # the weight is the module's business


def test_a_crop_decodes_the_crop_only_and_stays_aligned(made):
    outputs, _, _, decoded = made
    sr_image, hr_image = outputs.images(16)
    assert sr_image.shape == hr_image.shape == (2, 3, 16, 16)
    assert decoded == [(2, 12, 8, 8)]
    # 0.1 of latent noise is 0.025 in the image: a misplaced crop would differ by far more.
    assert (sr_image - hr_image).square().mean().sqrt() < 0.03


def test_without_an_image_the_target_is_decoded(made):
    _, flow, hr_image, _ = made
    outputs = StepOutputs(flow, None, PixelAutoencoder(downsample=2).decode, 2)
    torch.testing.assert_close(outputs.images()[1], hr_image)
    assert not outputs.images()[1].requires_grad


def test_latent_term(made):
    outputs, flow, _, decoded = made
    torch.testing.assert_close(LatentTerm(torch.nn.MSELoss())(outputs), (flow.x0_hat - flow.x0_target).square().mean())
    assert not decoded


def test_feature_term_takes_the_restoration_pass_or_all(made):
    outputs, *_ = made
    loss = AttentionDiversificationLoss()
    torch.testing.assert_close(FeatureTerm(loss)(outputs), loss(outputs.passes[0]))
    torch.testing.assert_close(FeatureTerm(loss, passes="all")(outputs), loss(outputs.passes[0] + outputs.passes[1]))
    torch.testing.assert_close(FeatureTerm(loss, layers=[0, -1])(outputs), loss(outputs.passes[0][::2]))


def test_every_and_weight_decide_when_a_term_is_due():
    term = ImageTerm(MSELoss(), every=3)
    assert [term.due(step) for step in range(4)] == [True, False, False, True]
    assert not ImageTerm(MSELoss(), weight=0.0).due(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageTerm(MSELoss(), weight=-1.0), "weight must not be negative, got -1.0"),
        (lambda: LatentTerm(MSELoss(), every=0), "every must be at least 1, got 0"),
        (lambda: ImageTerm(MSELoss(), crop=0), "crop must be at least 1 pixel"),
        (lambda: FeatureTerm(MSELoss(), passes="first"), "passes must be 'restoration' or 'all', got 'first'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("named", [None, 2, -1])
def test_a_restoration_that_is_not_named_feeds_no_feature_loss(made, named):
    outputs, *_ = made
    outputs.flow = outputs.flow._replace(restoration_pass=named)
    with pytest.raises(ValueError, match="restoration_pass"):
        FeatureTerm(AttentionDiversificationLoss())(outputs)


def test_a_single_pass_needs_no_name(made):
    outputs, flow, hr_image, _ = made
    single = StepOutputs(flow._replace(restoration_pass=None), hr_image, lambda x: x, 2, outputs.passes[:1])
    assert single.restoration_features() is outputs.passes[0]
