from __future__ import annotations

import pytest

from fluxsr.inference.model_card import model_card
from fluxsr.models import StudentRecord, flux_architecture
from fluxsr.models.families import PUBLISHED
from fluxsr.models.known_names import base_of, license_of

FLUX_DEV = "black-forest-labs/FLUX.1-dev"


def front_matter(card: str) -> dict[str, str]:
    """The header that a hub reads."""
    _, header, _ = card.split("---\n", 2)
    return dict(line.split(": ", 1) for line in header.splitlines())


FREE = [
    "nano", "nano-student", "black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.2-klein-4B",
    "black-forest-labs/FLUX.2-klein-base-4B",
]  # fmt: skip
FLUX1, FLUX2 = "flux-1-dev-non-commercial-license", "flux-non-commercial-license"


@pytest.mark.parametrize("base", FREE)
def test_the_free_bases(base):
    assert license_of(base).commercial
    header = front_matter(model_card(StudentRecord(base=base, start_time=0.25)))
    assert header["license"] == "apache-2.0" and "license_name" not in header
    assert "Commercial use is allowed" in model_card(StudentRecord(base=base, start_time=0.25))


@pytest.mark.parametrize(
    ("base", "license"),
    [("FLUX.1-dev", FLUX1), ("FLUX.1-Krea-dev", FLUX1), ("FLUX.1-Kontext-dev", FLUX1), ("FLUX.2-dev", FLUX2),
     ("FLUX.2-klein-9B", FLUX2), ("FLUX.2-klein-base-9B", FLUX2)],
)  # fmt: skip
def test_what_may_not_be_sold_says_so_and_links_its_own_license(base, license):
    card = model_card(StudentRecord(base=f"black-forest-labs/{base}", start_time=0.25))
    header = front_matter(card)
    assert header["license"] == "other" and header["license_name"] == license
    assert header["license_link"].startswith(f"https://huggingface.co/black-forest-labs/{base}")
    assert "**Commercial use is not allowed**" in card and "Commercial use is allowed" not in card


@pytest.mark.parametrize(
    "base", ["somebody/made-from-schnell", "somebody/FLUX.2-klein-4B", "somebody/FLUX.1-dev", "my-folder", "nano2"]
)
def test_what_is_not_known_gets_no_other_models_license(base):
    card = model_card(StudentRecord(base=base, start_time=0.25))
    header = front_matter(card)
    assert header["license"] == "unknown" and "license_name" not in header and "license_link" not in header
    assert "**ask whoever made the base**" in card and "Commercial use" not in card


def test_every_published_architecture_has_a_license():
    assert all(one.license.link for one in PUBLISHED.values() if one.hub_id)


def test_the_card_says_what_was_done():
    card = model_card(
        StudentRecord(base=FLUX_DEV, start_time=0.3, trained="30k steps"), folded=True, dtype="bfloat16", name="me/sr"
    )
    assert front_matter(card)["base_model"] == FLUX_DEV
    assert "from t = 0.3 to 0" in card and "30k steps" in card and "refuses others" in card
    assert 'from_pretrained("me/sr", torch_dtype=torch.bfloat16)' in card
    plain = model_card(StudentRecord(base="nano", start_time=0.25))
    assert "base_model" not in front_matter(plain) and "folded" not in plain and "Not stated." in plain


def test_the_base_is_named_without_its_path(tmp_path):
    dev, schnell = flux_architecture("flux.1-dev"), flux_architecture("flux.1-schnell")
    assert base_of("nano-student", {}) == "nano"
    assert base_of("trained.safetensors", flux_architecture("nano")) == "nano"
    assert base_of("black-forest-labs/FLUX.1-schnell", schnell) == "black-forest-labs/FLUX.1-schnell"
    (tmp_path / "copy").mkdir()
    assert base_of(str(tmp_path / "copy"), dev) == FLUX_DEV
    assert base_of(str(tmp_path / "copy"), schnell) == "copy"
    assert not license_of("copy").commercial
