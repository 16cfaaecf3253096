from __future__ import annotations

import pytest

from fluxsr.inference.model_card import FLUX_DEV, base_model_of, license_of, model_card
from fluxsr.models import flux_architecture


def front_matter(card: str) -> dict[str, str]:
    """The header that a hub reads."""
    _, header, _ = card.split("---\n", 2)
    return dict(line.split(": ", 1) for line in header.splitlines())


@pytest.mark.parametrize("base", ["nano", "nano-student", "black-forest-labs/FLUX.1-schnell"])
def test_the_free_bases(base):
    assert license_of(base).commercial
    header = front_matter(model_card(base, start_time=0.25))
    assert header["license"] == "apache-2.0" and "license_name" not in header
    assert "Commercial use is allowed" in model_card(base, start_time=0.25)


@pytest.mark.parametrize(
    "base", [FLUX_DEV, "somebody/made-from-schnell", "somebody/FLUX.1-dev-turbo", "my-folder", "nano2"]
)
def test_flux_dev_and_all_that_is_not_known_are_non_commercial(base):
    card = model_card(base, start_time=0.25)
    header = front_matter(card)
    assert header["license"] == "other" and header["license_name"] == "flux-1-dev-non-commercial-license"
    assert header["license_link"].startswith("https://huggingface.co/black-forest-labs/FLUX.1-dev/")
    assert "**Commercial use is not allowed**" in card and "Commercial use is allowed" not in card


def test_the_card_says_what_was_done():
    card = model_card(FLUX_DEV, start_time=0.3, trained="30k steps", folded=True, dtype="bfloat16", name="me/sr")
    assert front_matter(card)["base_model"] == FLUX_DEV
    assert "from t = 0.3 to 0" in card and "30k steps" in card and "refuses others" in card
    assert 'from_pretrained("me/sr", torch_dtype=torch.bfloat16)' in card
    plain = model_card("nano", start_time=0.25)
    assert "base_model" not in front_matter(plain) and "folded" not in plain and "Not stated." in plain


def test_the_base_is_named_without_its_path(tmp_path):
    dev, schnell = flux_architecture("flux.1-dev"), flux_architecture("flux.1-schnell")
    assert base_model_of("nano-student", {}) == "nano"
    assert base_model_of("trained.safetensors", flux_architecture("nano")) == "nano"
    assert base_model_of("black-forest-labs/FLUX.1-schnell", schnell) == "black-forest-labs/FLUX.1-schnell"
    (tmp_path / "copy").mkdir()
    assert base_model_of(str(tmp_path / "copy"), dev) == FLUX_DEV
    assert base_model_of(str(tmp_path / "copy"), schnell) == "copy"
    assert not license_of("copy").commercial
