"""The one place that pins sentences: what typical mistakes print. Other tests look at fields."""

from __future__ import annotations

import sys

import pytest

from fluxsr.cli.main import main

CONFIG = """\
model:
  autoencoder: {class_path: fluxsr.models.PixelAutoencoder}
  backbone: {class_path: fluxsr.models.load_flux, init_args: {model: nano}}
  objective: {class_path: fluxsr.flows.FlowTrajectoryDistillation, init_args: {lr_time: 0.25}}
"""
HELP = " (`fluxsr {} --help` lists the options)"
SENTENCES = [
    ("fitt", "fitt: unknown command; did you mean fit?"),
    ("upscale a.png", "required and not given: --output"),
    ("upscale a.png -o b --scael 2", "--scael: there is no such option; did you mean --scale?" + HELP.format("upscale")),
    ("upscale a.png -o b --scale two", "--scale: must be a positive number, got 'two'" + HELP.format("upscale")),
    ("upscale a.png -o b --format jpgg", "--format: must be one of png, jpg, webp, tif, bmp, avif, got 'jpgg'; did you mean "
     "jpg?" + HELP.format("upscale")),
    ("upscale a.png -o b --size 2x2 --scale 2", "--size: not together with --scale" + HELP.format("upscale")),
    ("upscale a.png -o b --steps", "--steps: no value is given: write one after it" + HELP.format("upscale")),
    ("pairs --output b --num many", "--num: must be a whole number, got 'many'" + HELP.format("pairs")),
    ("export --output b --vae pixel", "--vae: was renamed; did you mean --autoencoder?" + HELP.format("export")),
    ("report run.json --output r.pdf", "--output: the name must end in .html, got 'r.pdf'" + HELP.format("report")),
    ("pairs --config p.yaml", "p.yaml: nmu: there is no such key; did you mean num?"),
    ("pairs --config q.yaml", "--config q.yaml: there is no such file; did you mean p.yaml?" + HELP.format("pairs")),
    ("fit", "a configuration is needed: fluxsr fit --config FILE (`fluxsr configs` lists those that come with the package, "
     "by name)"),
    ("fit --config c.yaml --config wrong.yaml", "wrong.yaml: trainer.max_stepz: there is no such key; did you mean "
     "trainer.max_steps?"),
    ("fit --config c.yaml --model.objective.lr_tiem 1", "--model.objective.lr_tiem: FlowTrajectoryDistillation has no option "
     "'lr_tiem'; did you mean lr_time?" + HELP.format("fit")),
    ("fit --config c.yaml --model.objective fluxsr.flows.FlowMatchin", "--model.objective: there is no class "
     "fluxsr.flows.FlowMatchin; did you mean fluxsr.flows.FlowMatching?" + HELP.format("fit")),
    ("fit --config c.yaml --data.crop wide", "--data.crop: must be a whole number or null, got 'wide'" + HELP.format("fit")),
    ("fit --config c.yaml --data.degradation fluxsr.data.RealESRGANDegradation --data.degradation.blur_sigma2 [1,2]",
     "--data.degradation.blur_sigma2: RealESRGANDegradation has it under another name now; did you mean second.blur_sigma?"
     + HELP.format("fit")),
    ("plan --config c.yaml --memory lots", "--memory: must be a size with its unit, such as 24GB or 80GiB, got 'lots'"
     + HELP.format("plan")),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "said"), SENTENCES, ids=[typed for typed, _ in SENTENCES])
def test_the_sentence(tmp_path, monkeypatch, capsys, typed, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "wrong.yaml").write_text("trainer: {max_stepz: 3}\n")
    (tmp_path / "p.yaml").write_text("nmu: 3\noutput: b\n")
    with pytest.raises(SystemExit) as stopped:
        main(typed.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"fluxsr: error: {said}\n"
