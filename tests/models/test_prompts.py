import json

import pytest
import torch

from fluxsr.models import PromptEmbedding, encode_prompt
from tests.models.conftest import tiny_prompt


def test_goes_through_a_file(tmp_path):
    prompt = tiny_prompt()
    prompt.save(tmp_path / "p.safetensors")
    loaded = PromptEmbedding.load(tmp_path / "p.safetensors")
    assert torch.equal(loaded.prompt_embeds, prompt.prompt_embeds)
    assert torch.equal(loaded.pooled_prompt_embeds, prompt.pooled_prompt_embeds)
    assert loaded.text == "a photo"
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="is no prompt file; make one with `fluxsr prompt`"):
        PromptEmbedding.load(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"none.safetensors does not exist"):
        PromptEmbedding.load(tmp_path / "none.safetensors")


@pytest.fixture
def text_encoders(tmp_path):
    """A tiny local pipeline in FLUX's layout: CLIP and T5 with random weights and tokenizers made here."""
    transformers = pytest.importorskip("transformers")
    from diffusers import FluxPipeline
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", "<|startoftext|>", "<|endoftext|>", "a", "photo", "sharp", "of", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    t5_tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    clip_tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    torch.manual_seed(0)
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=10, d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=10, hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=3, eos_token_id=1,
        )
    )  # fmt: skip
    return FluxPipeline(
        scheduler=None, vae=None, transformer=None,
        text_encoder=clip.eval(), tokenizer=clip_tokenizer, text_encoder_2=t5.eval(), tokenizer_2=t5_tokenizer,
    )  # fmt: skip


def named(folder, pipeline: str) -> str:
    """A folder that says which pipeline it is."""
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return str(folder)


def test_encodes_with_the_pipelines_own_encoders(text_encoders, monkeypatch, tmp_path):
    from diffusers import FluxPipeline

    model = named(tmp_path, "FluxPipeline")
    monkeypatch.setattr(FluxPipeline, "from_pretrained", classmethod(lambda cls, *args, **kwargs: text_encoders))
    trimmed = encode_prompt("a sharp photo", model, max_tokens=16, dtype=torch.float32)
    padded = encode_prompt("a sharp photo", model, max_tokens=16, trim=False, dtype=torch.float32)
    assert trimmed.prompt_embeds.shape == (1, 4, 24)  # three words and the end token
    assert padded.prompt_embeds.shape == (1, 16, 24)
    assert trimmed.pooled_prompt_embeds.shape == (1, 12)
    assert torch.equal(padded.prompt_embeds[:, :4], trimmed.prompt_embeds)
    assert trimmed.text == "a sharp photo"
    with pytest.raises(ValueError, match=r"is a FLUX.1, which has its guidance inside"):
        encode_prompt("a sharp photo", model, negative="")


def test_klein_encodes_the_prompt_and_what_guidance_leads_away_from(tmp_path):
    """A tiny Qwen3 with a chat template, saved and loaded as diffusers does."""
    transformers = pytest.importorskip("transformers")
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<unk>", "<user>", "<answer>", "a", "photo", "sharp"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", padding_side="right",
        chat_template="{% for m in messages %}<user> {{ m['content'] }}{% endfor %} <answer>",
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=7, hidden_size=8, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
            num_key_value_heads=1, head_dim=4, max_position_embeddings=64,
        )
    ).eval()  # fmt: skip
    parts = {"scheduler": FlowMatchEulerDiscreteScheduler(), "vae": None, "transformer": None}
    pipeline = Flux2KleinPipeline(text_encoder=encoder, tokenizer=fast, **parts)
    pipeline.save_pretrained(tmp_path)
    trimmed = encode_prompt("a sharp photo", str(tmp_path), negative="", max_tokens=16, dtype=torch.float32)
    padded = encode_prompt("a sharp photo", str(tmp_path), max_tokens=16, trim=False, dtype=torch.float32)
    assert trimmed.pooled_prompt_embeds is None and padded.negative_prompt_embeds is None
    assert trimmed.prompt_embeds.shape == (1, 5, 24) and trimmed.negative_prompt_embeds.shape == (1, 2, 24)
    expected, _ = pipeline.encode_prompt("a sharp photo", max_sequence_length=16)
    assert torch.equal(padded.prompt_embeds, expected)
    torch.testing.assert_close(trimmed.prompt_embeds, expected[:, :5])
    trimmed.save(tmp_path / "prompt.safetensors")
    loaded = PromptEmbedding.load(tmp_path / "prompt.safetensors")
    assert loaded.pooled_prompt_embeds is None
    assert torch.equal(loaded.negative_prompt_embeds, trimmed.negative_prompt_embeds)


def test_a_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="folder is incomplete or damaged"):
        encode_prompt("x", str(tmp_path))
