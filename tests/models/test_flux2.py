"""FLUX.2 against diffusers' own pipeline: tokens, ids, latents, velocity, guidance and a picture."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

from fluxsr.flows import euler
from fluxsr.models import FluxBackbone, load_autoencoder, tabulate_modulation
from fluxsr.models.autoencoders import Flux2Autoencoder, wrap_autoencoder
from fluxsr.models.families import FLUX2, Conditions
from fluxsr.models.families.family import pack
from tests.models.conftest import perturb, tiny_prompt, tiny_transformer


def tiny_kl2(seed: int = 0) -> AutoencoderKLFlux2:
    """A random autoencoder of FLUX.2's kind with 4 latent channels, whose statistics are none of a fresh batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 3.0)
    return vae


def by_hand(transformer, xt, t, prompt=None, guidance=None):
    """The velocity as Flux2KleinPipeline computes it, with the pipeline's own helpers."""
    batch = len(xt)
    tokens = Flux2KleinPipeline._patchify_latents(xt)
    embeds = (torch.zeros(1, 0, 24) if prompt is None else prompt.prompt_embeds).expand(batch, -1, -1)
    ids = Flux2KleinPipeline._prepare_latent_ids(tokens)
    v = transformer(
        hidden_states=Flux2KleinPipeline._pack_latents(tokens),
        timestep=t,
        guidance=None if guidance is None else torch.full((batch,), guidance),
        encoder_hidden_states=embeds,
        img_ids=ids,
        txt_ids=Flux2KleinPipeline._prepare_text_ids(embeds),
    ).sample
    return Flux2KleinPipeline._unpatchify_latents(Flux2KleinPipeline._unpack_latents_with_ids(v, ids))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("guidance", [None, 4.0])
def test_velocity_is_the_pipelines_own(state, text, guidance):
    transformer = tiny_transformer(family="flux.2", guidance_embeds=guidance is not None)
    prompt = tiny_prompt(family="flux.2") if text else None
    velocity = FluxBackbone.from_transformer(transformer, prompt, guidance)(*state)
    torch.testing.assert_close(velocity, by_hand(transformer, *state, prompt, guidance), rtol=0, atol=0)


def test_tokens_and_ids_are_the_pipelines_own(generator):
    latents = torch.randn(2, 32, 6, 10, generator=generator)
    patches = Flux2KleinPipeline._patchify_latents(latents)
    assert torch.equal(pack(latents), Flux2KleinPipeline._pack_latents(patches))
    prompt = torch.zeros(1, 5, 24)
    given = {}

    def transformer(**arguments):
        given.update(arguments)
        return (arguments["hidden_states"],)

    FLUX2.velocity(transformer, latents, torch.ones(2), Conditions(prompt, None, None), torch.float32)
    assert torch.equal(given["img_ids"], Flux2KleinPipeline._prepare_latent_ids(patches)[0].float())
    assert torch.equal(given["txt_ids"], Flux2KleinPipeline._prepare_text_ids(prompt)[0].float())


def klein(vae, transformer) -> Flux2KleinPipeline:
    """The tiny model as a pipeline of diffusers; it has no text encoder."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    pipeline = Flux2KleinPipeline(
        scheduler=scheduler, vae=vae, transformer=transformer, text_encoder=None, tokenizer=None, is_distilled=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_latents_are_the_pipelines_own_and_come_back(generator):
    vae = tiny_kl2()
    autoencoder = wrap_autoencoder(vae)
    assert isinstance(autoencoder, Flux2Autoencoder)
    assert (autoencoder.downsample, autoencoder.latent_channels) == (2, 4)
    image = torch.rand(2, 3, 16, 24, generator=generator)
    latents = autoencoder.encode(image)
    expected = klein(vae, tiny_transformer(family="flux.2"))._encode_vae_image(image * 2 - 1, generator)
    assert torch.equal(latents, Flux2KleinPipeline._unpatchify_latents(expected))
    raw = vae.encode(image * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(autoencoder.denormalize(latents), raw)
    torch.testing.assert_close(autoencoder.decode(latents), vae.decode(raw).sample / 2 + 0.5, rtol=1e-4, atol=1e-5)


def test_other_statistics_have_another_fingerprint(tmp_path):
    vae = tiny_kl2()
    vae.save_pretrained(tmp_path)
    first = wrap_autoencoder(vae).fingerprint()
    assert load_autoencoder(str(tmp_path)).fingerprint() == first
    assert load_autoencoder(str(tmp_path), dtype="bfloat16").fingerprint() == first
    vae.bn.running_mean[3] += 0.1
    assert wrap_autoencoder(vae).fingerprint() != first


@pytest.mark.parametrize("scale", [1.0, 4.0])
@torch.no_grad()
def test_a_picture_is_the_pipelines_own_bit_for_bit(generator, scale):
    """Eight steps with classifier-free guidance on the published time grid, decoded and rounded to 8 bits."""
    vae, transformer, prompt = tiny_kl2(), tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2")
    noise = torch.randn(1, 4, 16, 24, generator=generator)
    theirs = klein(vae, transformer)(
        prompt_embeds=prompt.prompt_embeds, negative_prompt_embeds=prompt.negative_prompt_embeds, guidance_scale=scale,
        num_inference_steps=8, height=32, width=48, latents=Flux2KleinPipeline._patchify_latents(noise), output_type="np",
    ).images[0]  # fmt: skip
    backbone, autoencoder = FluxBackbone(transformer, prompt), wrap_autoencoder(vae)
    latents = euler(backbone.guided(scale), noise, 1.0, 0.0, 8, shift=FLUX2.shift(8 * 12, 8))
    ours = autoencoder.decode(latents).clamp(0, 1)[0].permute(1, 2, 0)
    assert ours.std() > 0.01
    assert torch.equal((ours * 255).round(), (torch.from_numpy(theirs) * 255).round())


def test_guidance_needs_a_negative_prompt(state):
    backbone = FluxBackbone(tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2"))
    alone = backbone.prompt._replace(negative_prompt_embeds=None)
    against = FluxBackbone(backbone.transformer, alone._replace(prompt_embeds=backbone.negative_prompt_embeds))(*state)
    expected = against + 3 * (backbone(*state) - against)
    torch.testing.assert_close(backbone.guided(3.0)(*state), expected, rtol=0, atol=0)
    backbone.set_prompt(alone)
    assert torch.equal(backbone.guided(1.0)(*state), backbone(*state))
    with pytest.raises(ValueError, match="guidance of 3 needs a negative prompt"):
        backbone.guided(3.0)


def test_adapters_reach_every_linear_of_every_block():
    backbone = FluxBackbone(tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2"))
    backbone.add_lora(rank=2)
    adapted = {
        name.removeprefix("transformer.") for name, _ in backbone.named_modules() if name.endswith(".base_layer")
    }
    linears = [
        name for name, module in tiny_transformer(family="flux.2").named_modules() if "Linear" in type(module).__name__
    ]
    blocks = {f"{name}.base_layer" for name in linears if "transformer_blocks" in name}
    assert adapted == blocks and len(blocks) == 2 * 12 + 2 * 2


def test_the_adapter_loads_in_plain_diffusers_and_theirs_here(tmp_path, state):
    backbone = FluxBackbone(tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2"))
    backbone.add_lora(rank=2)
    perturb(backbone)
    expected = backbone(*state)
    backbone.save_lora(tmp_path)
    pipeline = klein(None, tiny_transformer(family="flux.2"))
    pipeline.load_lora_weights(tmp_path)
    velocity = by_hand(pipeline.transformer, *state, tiny_prompt(family="flux.2"))
    torch.testing.assert_close(velocity, expected, rtol=1e-5, atol=1e-6)
    pipeline.save_lora_weights(tmp_path / "theirs", transformer_lora_layers=lora_layers(pipeline.transformer))
    fresh = FluxBackbone(tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2"))
    fresh.load_lora(tmp_path / "theirs")
    torch.testing.assert_close(fresh(*state), velocity, rtol=1e-5, atol=1e-6)


def lora_layers(transformer):
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(transformer, adapter_name=next(iter(transformer.peft_config)))


def test_a_modulation_table_is_refused():
    backbone = FluxBackbone(tiny_transformer(family="flux.2"))
    backbone.add_lora(rank=2)
    with pytest.raises(ValueError, match=r"of no use to FLUX.2, whose blocks share their modulation"):
        tabulate_modulation(backbone, torch.tensor([0.5]))
