"""Implements quality alignment: losses of the restored image alone, FlowSR's with CLIP and one for any scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.losses._reduction import Reduction, per_image
from fluxsr.losses.network import NoReferenceLoss
from fluxsr.losses.weights import built_exactly, without_values

POSITIVE = ("a sharp photo", "a clean, detailed, high quality photo")
NEGATIVE = ("a blurry photo", "a noisy, compressed, low quality photo")
# CLIP's own, on [0, 1] images (Radford et al. 2021, their released preprocessing).
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class CLIPQualityLoss(NoReferenceLoss):
    """Pulls the image towards positive captions and away from negative ones, ``-log softmax`` over the cosines (FlowSR).

    With the cosines ``c`` of the image's CLIP embedding and each caption's::

        L = -log( sum_positive exp(scale c) / sum_all exp(scale c) )

    The paper (arXiv 2605.12377) shows CLIP and two sorts of captions in a figure; form, captions and model are our defaults.
    The image is resized to CLIP's input size, so finer detail is not seen: in training give the term a crop of about that
    size.

    Args:
        source: Hub id or local folder of a ``transformers`` CLIP model with its tokenizer. Needs ``fluxsr[clip]``.
        positive: Captions to be pulled to, at least one.
        negative: Captions to be pushed from, at least one.
        scale: Factor of the cosines; the model's own learned scale (about 100) by default.
        revision: Revision of the hub repository.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.

    Raises:
        ValueError: If the model can't be loaded, saying what to do, or there is no caption of a sort.
    """

    def __init__(
        self,
        source: str = "openai/clip-vit-base-patch32",
        positive: Sequence[str] = POSITIVE,
        negative: Sequence[str] = NEGATIVE,
        scale: float | None = None,
        revision: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        if not positive or not negative:
            raise ValueError("positive and negative captions are both needed, at least one each")
        net = built_exactly(lambda: _CLIPCosines(source, [*positive, *negative], revision))
        super().__init__(net, reduction)
        self.scale = net.learned_scale if scale is None else float(scale)
        self.positives = len(positive)

    def cosines(self, image: Tensor) -> Tensor:
        """Return ``(B, captions)`` cosines in [-1, 1] of images ``(B, 3, H, W)`` in [0, 1], the positive captions first."""
        return self.network(image)

    def measure(self, sr_image: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
        log_shares = (self.scale * self.cosines(sr_image)).log_softmax(dim=-1)
        return -log_shares[:, : self.positives].logsumexp(dim=-1)


class ScoreLoss(NoReferenceLoss):
    """Turns any differentiable image scorer into a loss: its scores, negated where higher is better.

    Args:
        scorer: A module called ``scorer(image)`` on ``(B, 3, H, W)`` images in [0, 1], for example one of pyiqa's metrics
            made with ``as_loss=True``. It is frozen, and stays in evaluation mode and in its dtype.
        lower_is_better: Whether good images score low (NIQE) rather than high (MUSIQ).
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.
    """

    def __init__(self, scorer: nn.Module, lower_is_better: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__(scorer, reduction)
        self.lower_is_better = lower_is_better

    def measure(self, sr_image: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
        score, batch = self.network(sr_image), sr_image.shape[0]
        if not isinstance(score, Tensor):
            raise ValueError(f"the scorer returned a {type(score).__name__}: it must give each image's score, (B,)")
        if score.ndim == 0 and self.reduction != "none":
            score = score.expand(batch)  # a scorer that takes the mean itself
        if score.ndim == 0 or score.shape[0] != batch:
            raise ValueError(
                f"the scorer returned shape {tuple(score.shape)} for a batch of {batch}: it must give each image's score, (B,)"
            )
        return per_image(score) if self.lower_is_better else -per_image(score)

    def extra_repr(self) -> str:
        """Show the direction."""
        return f"lower_is_better={self.lower_is_better}"


class _CLIPCosines(nn.Module):
    """Cosines between images and fixed captions; the text tower is used once and dropped."""

    text_features: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, source: str, captions: list[str], revision: str | None) -> None:
        super().__init__()
        model, tokenizer = _load_clip(source, revision)
        if tokenizer is None:
            text = torch.empty(len(captions), model.config.projection_dim)
            self.learned_scale = 100.0
        else:
            tokens = tokenizer(captions, padding=True, return_tensors="pt")
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                text = model.text_projection(model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output)
            self.learned_scale = float(model.logit_scale.detach().exp())
        self.vision = model.vision_model
        self.projection = model.visual_projection
        self.register_buffer("text_features", nn.functional.normalize(text, dim=-1))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        size = self.vision.config.image_size
        resized = nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True)
        features = self.projection(self.vision((resized - self.mean) / self.std).pooler_output)
        return nn.functional.normalize(features, dim=-1) @ self.text_features.T


def _load_clip(source: str, revision: str | None) -> tuple[Any, Any]:
    """Return CLIP and its tokenizer; where there are no values, by the folder's configuration or else ViT-B/32's."""
    try:
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel
    except ImportError as error:
        raise ValueError("CLIPQualityLoss needs the package transformers: pip install 'fluxsr[clip]'") from error
    if without_values():
        return CLIPModel(CLIPConfig.from_pretrained(source) if Path(source).is_dir() else CLIPConfig()), None
    where: dict[str, Any] = {} if revision is None else {"revision": revision}
    try:
        model = CLIPModel.from_pretrained(source, **where).float().eval()
        return model, AutoTokenizer.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"can't load CLIP from {source!r}: give a hub id, or a local folder with a transformers CLIP model and its "
            f"tokenizer ({first_line})"
        ) from error
