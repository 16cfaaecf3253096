import pytest
import torch
from torch import nn

from fluxsr.losses import CLIPQualityLoss, ScoreLoss

WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "sharp", "clean", "blurry", "noisy"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny random CLIP with a tokenizer, in the layout that transformers saves."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("clip")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(WORDS),
            "max_position_embeddings": 16,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPModel(config).eval()
        for parameter in model.parameters():  # the default start is so small that all cosines would agree
            torch.nn.init.normal_(parameter, std=0.3)
        model.logit_scale.data.fill_(1.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def image(generator):
    return torch.rand(3, 3, 48, 40, generator=generator)


def test_equals_the_formula_by_the_model_itself(clip_folder, image):
    from transformers import AutoTokenizer, CLIPModel

    positive, negative = ["a sharp photo", "a clean photo"], ["a blurry photo", "a noisy photo", "noisy"]
    loss = CLIPQualityLoss(str(clip_folder), positive, negative)
    model, tokenizer = CLIPModel.from_pretrained(clip_folder), AutoTokenizer.from_pretrained(clip_folder)
    resized = torch.nn.functional.interpolate(image, (32, 32), mode="bicubic", antialias=True)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        tokens = tokenizer(positive + negative, padding=True, return_token_type_ids=False, return_tensors="pt")
        logits = model(pixel_values=(resized - mean) / std, **tokens).logits_per_image
    expected = -logits.softmax(dim=1)[:, :2].sum(dim=1).log().mean()
    torch.testing.assert_close(loss(image), expected, rtol=1e-5, atol=1e-6)
    assert not any("text" in name for name, _ in loss.named_parameters())


def test_the_gradient_moves_the_image_to_the_positive_captions(clip_folder, image):
    loss = CLIPQualityLoss(str(clip_folder), ["a sharp photo"], ["a blurry photo"])
    image.requires_grad_()
    before = loss(image)
    (gradient,) = torch.autograd.grad(before, image)
    assert gradient.norm() > 0
    moved = image - 0.05 * gradient / gradient.abs().max()
    assert loss(moved) < before
    lead = [float((cosines[:, 0] - cosines[:, 1]).mean()) for cosines in (loss.cosines(moved), loss.cosines(image))]
    assert lead[0] > lead[1]


def test_the_image_range_and_scale_matter(clip_folder, image):
    small = CLIPQualityLoss(str(clip_folder), ["a sharp photo"], ["a blurry photo"], scale=1e-6)
    assert small(image) == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)
    assert not torch.allclose(small.cosines(image), small.cosines(image * 0.1))


def test_a_missing_clip_and_missing_captions_are_named(tmp_path, clip_folder, monkeypatch):
    with pytest.raises(ValueError, match="nowhere"):
        CLIPQualityLoss(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="captions"):
        CLIPQualityLoss(str(clip_folder), positive=[])
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'fluxsr\[clip\]'"):
        CLIPQualityLoss(str(clip_folder))


class Brightness(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, image):
        return self.gain * image.mean(dim=(1, 2, 3))


@pytest.mark.parametrize(("lower_is_better", "sign"), [(False, -1), (True, 1)])
def test_any_scorer_becomes_a_loss(image, lower_is_better, sign):
    loss = ScoreLoss(Brightness(), lower_is_better)
    torch.testing.assert_close(loss(image, None), sign * image.mean(), rtol=1e-5, atol=0)
    assert not loss.network.net.gain.requires_grad
    none = ScoreLoss(Brightness(), lower_is_better, reduction="none")
    torch.testing.assert_close(none(image), sign * image.mean(dim=(1, 2, 3)), rtol=1e-5, atol=0)


def test_a_scorer_that_somebody_else_trains_is_in_evaluation_mode(image):
    """Registered in the model, too, it is put into training mode with the model."""
    scorer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
    owner = nn.ModuleDict({"scorer": scorer, "loss": ScoreLoss(scorer)})
    expected, statistics = owner["loss"](image), scorer[1].running_mean.clone()
    for half in (owner, scorer, scorer[2]):
        half.train()
        assert torch.equal(owner["loss"](image), expected)
    assert torch.equal(scorer[1].running_mean, statistics)


def test_a_scorer_that_is_none_is_told(image):
    class Pair(nn.Module):
        def forward(self, image):
            return image, image

    with pytest.raises(ValueError, match="function"):
        ScoreLoss(lambda image: image.mean())
    with pytest.raises(ValueError, match="tuple"):
        ScoreLoss(Pair())(image)
