"""Quality alignment: terms that look at the restored image alone, FlowSR's with CLIP and one for any scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.losses._checks import FirstBatch, check_images
from fluxsr.losses.weights import without_values

POSITIVE = ("a sharp photo", "a clean, detailed, high quality photo")
NEGATIVE = ("a blurry photo", "a noisy, compressed, low quality photo")
# CLIP's own, on [0, 1] images (Radford et al. 2021, their released preprocessing).
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class CLIPQualityLoss(nn.Module):
    """Pulls the image towards positive captions and away from negative ones, ``-log softmax`` over the cosines (FlowSR).

    With the cosines ``c`` of the image's CLIP embedding and each caption's::

        L = -log( sum_positive exp(scale c) / sum_all exp(scale c) )

    The paper (arXiv 2605.12377) shows CLIP and two sorts of captions in a figure; form, captions and model are our defaults.
    The image is resized to CLIP's input size, so finer detail is not seen: in training give the term a crop of about that
    size.

    Args:
        source: hub id or local folder of a ``transformers`` CLIP model with its tokenizer. Needs ``fluxsr[clip]``.
        positive: captions to be pulled to, at least one.
        negative: captions to be pushed from, at least one.
        scale: of the cosines; the model's own learned scale (about 100) by default.
        revision: of the hub repository.

    Raises:
        ValueError: if the model can't be loaded, saying what to do, or there is no caption of a sort.
    """

    text_features: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: str = "openai/clip-vit-base-patch32",
        positive: Sequence[str] = POSITIVE,
        negative: Sequence[str] = NEGATIVE,
        scale: float | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if not positive or not negative:
            raise ValueError("positive and negative captions are both needed, at least one each")
        captions = [*positive, *negative]
        if without_values():
            model = _empty_clip(source)
            text = torch.empty(len(captions), model.config.projection_dim)
        else:
            model, tokenizer = _load_clip(source, revision)
            tokens = tokenizer(captions, padding=True, return_tensors="pt")
            with torch.no_grad():
                text = model.text_projection(model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output)
        self._check_first = FirstBatch()
        learned = model.logit_scale.detach().exp() if scale is None else scale
        self.scale = 100.0 if isinstance(learned, Tensor) and learned.is_meta else float(learned)
        self.positives = len(positive)
        # The text tower is used once: only the vision side stays.
        self.vision = model.vision_model.requires_grad_(False).eval()
        self.projection = model.visual_projection.requires_grad_(False)
        self.register_buffer("text_features", nn.functional.normalize(text, dim=-1), persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> CLIPQualityLoss:
        """Stay in evaluation mode: nothing here is trained."""
        return super().train(False)

    def cosines(self, image: Tensor) -> Tensor:
        """Return ``(B, captions)`` cosines in [-1, 1] of images ``(B, 3, H, W)`` in [0, 1], the positive captions first."""
        size = self.vision.config.image_size
        resized = nn.functional.interpolate(image.float(), (size, size), mode="bicubic", antialias=True)
        features = self.projection(self.vision((resized - self.mean) / self.std).pooler_output)
        return nn.functional.normalize(features, dim=-1) @ self.text_features.T

    def forward(self, sr_image: Tensor, hr_image: Tensor | None = None) -> Tensor:
        """Return the scalar loss of ``(B, 3, H, W)`` images in [0, 1]; ``hr_image`` is not looked at.

        Raises:
            ValueError: wrong shape, channels or dtype, or values up to 255 in the first images.
        """
        check_images(sr_image, sr_image, channels=3)
        self._check_first(sr_image)
        log_shares = (self.scale * self.cosines(sr_image)).log_softmax(dim=-1)
        return -log_shares[:, : self.positives].logsumexp(dim=-1).mean()


class ScoreLoss(nn.Module):
    """Turns any differentiable image scorer into a loss: the mean of its scores, negated where higher is better.

    Args:
        scorer: a module called ``scorer(image)`` on ``(B, 3, H, W)`` images in [0, 1], for example one of pyiqa's metrics
            made with ``as_loss=True``. It is frozen.
        lower_is_better: whether good images score low (NIQE) rather than high (MUSIQ).
    """

    def __init__(self, scorer: nn.Module, lower_is_better: bool = False) -> None:
        super().__init__()
        self.scorer = scorer.requires_grad_(False).eval()
        self.lower_is_better = lower_is_better
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor | None = None) -> Tensor:
        """Return the scalar loss of ``(B, 3, H, W)`` images in [0, 1]; ``hr_image`` is not looked at.

        Raises:
            ValueError: wrong shape, channels or dtype, or values up to 255 in the first images.
        """
        check_images(sr_image, sr_image, channels=3)
        self._check_first(sr_image)
        score = self.scorer(sr_image).mean()
        return score if self.lower_is_better else -score

    def extra_repr(self) -> str:
        """Show the direction."""
        return f"lower_is_better={self.lower_is_better}"


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("CLIPQualityLoss needs the package transformers: pip install 'fluxsr[clip]'") from error
    return transformers


def _empty_clip(source: str) -> Any:
    """Return CLIP without weights, by the folder's configuration or else ViT-B/32's, which is the default of its class."""
    config = _transformers().CLIPConfig
    return _transformers().CLIPModel(config.from_pretrained(source) if Path(source).is_dir() else config())


def _load_clip(source: str, revision: str | None) -> tuple[Any, Any]:
    library = _transformers()
    where: dict[str, Any] = {} if revision is None else {"revision": revision}
    try:
        return library.CLIPModel.from_pretrained(source, **where), library.AutoTokenizer.from_pretrained(
            source, **where
        )
    except (OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"can't load CLIP from {source!r}: give a hub id, or without a network a local folder with a transformers "
            f"CLIP model and its tokenizer ({first_line})"
        ) from error
