from __future__ import annotations

import pytest

from fluxsr.cli.main import main
from fluxsr.models import PromptEmbedding
from fluxsr.models.prompts import make_prompt
from tests.models.conftest import tiny_prompt


@pytest.mark.parametrize("output", ["prompt.pt", "prompt", "prompt.safetensors.txt"])
def test_the_output_is_a_safetensors_file(output, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors, got .*prompt"):
        make_prompt(output=str(tmp_path / output))
    assert not list(tmp_path.iterdir())


def test_a_missing_model_folder_says_what_to_do(tmp_path, capsys):
    missing = tmp_path / "FLUX"
    with pytest.raises(SystemExit) as stopped:
        main(["prompt", "--output", str(tmp_path / "prompt.safetensors"), "--model", str(missing)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert str(missing) in error
    assert "correct the path" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_an_incomplete_model_folder_says_so(tmp_path):
    (tmp_path / "FLUX").mkdir()
    with pytest.raises(ValueError, match="incomplete or damaged"):
        make_prompt(output=str(tmp_path / "prompt.safetensors"), model=str(tmp_path / "FLUX"))


def test_the_file_holds_what_the_encoders_made(tmp_path, monkeypatch, capsys):
    asked = {}

    def encode(text, model, **options):
        asked.update(options, text=text, model=model)
        return tiny_prompt()

    monkeypatch.setattr("fluxsr.models.prompts.encode_prompt", encode)
    output = tmp_path / "prompt.safetensors"
    main(["prompt", "--output", str(output), "--text", "a photo", "--model", "somewhere", "--max_tokens", "7"])
    loaded = PromptEmbedding.load(output)
    assert loaded.text == "a photo"
    assert loaded.prompt_embeds.equal(tiny_prompt().prompt_embeds)
    assert (asked["text"], asked["model"], asked["max_tokens"]) == ("a photo", "somewhere", 7)
    assert "3 tokens" in capsys.readouterr().out
