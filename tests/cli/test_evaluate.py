from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from fluxsr.cli.main import main
from fluxsr.data import RealESRGANDegradation
from fluxsr.evaluation import load_metric
from fluxsr.images import read_image
from fluxsr.images.resize import rounded
from fluxsr.inference import Upscaler
from fluxsr.models import load_flux
from tests.cli.conftest import fresh_process_modules


@pytest.fixture
def sets(tmp_path, photos):
    """HR photos of 64x64, two systems' results and LR images."""
    for number, path in enumerate(sorted(photos.iterdir())):
        photo = Image.open(path).crop((0, 0, 64, 64))
        blurred = photo.resize((16, 16)).resize((64, 64))
        for folder, image in {
            "HR": photo,
            "a": blurred,
            "b": photo.rotate(number),
            "LR": photo.resize((16, 16)),
        }.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            image.save(tmp_path / folder / path.name)
    return tmp_path


def evaluate(*arguments):
    main(["evaluate", *map(str, arguments)])


def test_the_command_of_the_issue(sets, capsys, assets, monkeypatch):
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(assets))
    evaluate(
        *("--hr", sets / "HR", "--results", f"A={sets / 'a'}", f"B={sets / 'b'}"),
        *("--metrics", "psnr,ssim,lpips_alex,dists", "--output", sets / "out.json"),
    )
    results = json.loads((sets / "out.json").read_text())
    for name in "AB":
        entry = results["systems"][name]
        assert list(entry["images"]) == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.png"]
        assert set(entry["mean"]) == set(entry["images"]["coffee.png"]) == {"psnr", "ssim", "lpips_alex", "dists"}
    pair = (read_image(sets / part / "coffee.png")[None] for part in ("a", "HR"))
    assert results["systems"]["A"]["images"]["coffee.png"]["psnr"] == load_metric("psnr").score(*pair)
    shown = capsys.readouterr().out
    assert "4 images" in shown and "lpips_alex: B - A" in shown


def test_a_benchmark_with_models_into_three_files(sets, capsys):
    root = sets / "benchmarks" / "Set5"
    root.mkdir(parents=True)
    for path in (sets / "HR").iterdir():
        path.rename(root / f"{path.stem}_SRF_4_HR.png")
    for path in (sets / "LR").iterdir():
        path.rename(root / f"{path.stem}_SRF_4_LR.png")
    evaluate(
        *("--benchmark", "set5", "--root", root.parent, "--bicubic", "--model", "ours=nano-student", "--device", "cpu"),
        *("--metrics", "psnr", "--save_images", sets / "kept"),
        *("--output", sets / "out.md", sets / "out.csv", sets / "out.json"),
    )
    results = json.loads((sets / "out.json").read_text())
    assert list(results["systems"]) == ["bicubic", "ours"] and results["protocol"]["crop"] == 4
    assert results["benchmark"]["original"] is False
    lr_image = read_image(root / "coffee_SRF_4_LR.png")
    expected = Upscaler.from_pretrained(device="cpu")((lr_image * 255).round().byte().permute(1, 2, 0).numpy(), scale=4)
    kept = Image.open(sets / "kept" / "ours" / "coffee_SRF_4_HR.png")
    assert (
        torch.tensor(expected) == torch.frombuffer(bytearray(kept.tobytes()), dtype=torch.uint8).view(64, 64, 3)
    ).all()
    assert "| ours |" in (sets / "out.md").read_text() and "ours,mean," in (sets / "out.csv").read_text()
    assert "these are 4" in capsys.readouterr().out


def test_an_adapter_is_measured_on_its_base_as_it_upscales(sets, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = load_flux("nano", trainable="lora", lora_rank=2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    backbone.save(tmp_path / "adapter.safetensors")
    model = {"lora": str(tmp_path / "adapter.safetensors"), "start_time": 0.5, "window": 32}
    options = [word for name, value in model.items() for word in (f"--{name}", value)]
    evaluate(
        *("--hr", sets / "HR", "--lr", sets / "LR", "--model", "mine=nano", *options, "--metrics", "psnr"),
        *("--device", "cpu", "--save_images", sets / "kept", "-o", sets / "out.json"),
    )
    lr_image = (read_image(sets / "LR" / "coffee.png") * 255).round().byte().permute(1, 2, 0).numpy()
    expected = Upscaler.from_pretrained("nano", device="cpu", **model)(lr_image, scale=4)
    kept = read_image(sets / "kept" / "mine" / "coffee.png")
    assert torch.equal((kept * 255).round().byte().permute(1, 2, 0), torch.tensor(expected))


def test_lr_images_are_made_with_a_seed(sets, monkeypatch):
    seen = {}

    def keep(testset, *rest):
        seen["set"] = testset
        raise ValueError("enough")

    monkeypatch.setattr("fluxsr.evaluation.run.evaluate", keep)
    with pytest.raises(SystemExit):
        evaluate("--hr", sets / "HR", "--degrade", "realesrgan", "--seed", 7, "--bicubic", "--output", sets / "o.json")
    assert seen["set"].lr == "realesrgan, seed 7"
    hr_image = read_image(sets / "HR" / "chelsea.png")[None]
    expected = RealESRGANDegradation(scale=4)(hr_image, seeds=[8])  # the second image
    torch.testing.assert_close(rounded(seen["set"].lr_image("chelsea.png")), rounded(expected))


def test_without_hr_only_blind_metrics(sets, assets, capsys):
    options = ("--lr", sets / "LR", "--bicubic", "--weights", assets, "--output", sets / "out.json")
    with pytest.raises(SystemExit):
        evaluate(*options, "--metrics", "psnr")
    assert "psnr need HR images" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # 64 pixels a side are no two blocks
        evaluate(*options)
    error = capsys.readouterr().err
    assert all(part in error for part in ("niqe", "astronaut.png", "rocket.png"))
    evaluate(*options, "--scale", 16, "--metrics", "niqe")
    results = json.loads((sets / "out.json").read_text())
    assert results["images"]["coffee.png"] == {"hr": None, "lr": str(sets / "LR" / "coffee.png"), "size": [256, 256]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hr {0}/HR --output {0}/o.json", "nothing to measure: give --results"),
        ("--hr {0}/HR --bicubic", "--output"),
        ("--hr {0}/HR --bicubic --output {0}/o.txt", "must end in .json, .csv or .md"),
        ("--bicubic --output {0}/o.json", "give --benchmark, --hr or --lr"),
        ("--hr {0}/HR --results {0}/a --output {0}/o.json", "--results wants NAME=DIR"),
        ("--hr {0}/HR --results A={0}/none --output {0}/o.json", "none doesn't exist"),
        ("--hr {0}/HR --results A={0}/a A={0}/b --output {0}/o.json", "a name of its own"),
        ("--hr {0}/HR --results A={0}/a --metrics psnr,pnsr --output {0}/o.json", "'pnsr'"),
        ("--hr {0}/HR --results A={0}/LR --output {0}/o.json", "4 of 4 images have another size"),
        ("--hr {0}/HR --results A={0}/a --crop -1 --output {0}/o.json", "--crop must be 0 or more"),
        ("--benchmark set14 --bicubic --output {0}/o.json", "give --root"),
        ("--benchmark set14 --hr {0}/HR --bicubic --output {0}/o.json", "leave one of them out"),
        ("--hr {0}/HR --lr {0}/LR --degrade bicubic --bicubic --output {0}/o.json", "and no --lr"),
        ("--hr {0}/HR --results A={0}/a --metrics fid --output {0}/o.json", "at least 50"),
        ("--hr {0}/HR --model {0}/no.safetensors --output {0}/o.json", "no.safetensors"),
        ("--hr {0}/HR --frobnicate", "--frobnicate"),
        (
            "--hr {0}/HR --model nano-student nano-flowsr --lora a --window 64 --output {0}/o.json",
            "--lora and --window",
        ),
        ("--hr {0}/HR --bicubic --start_time 0.5 --output {0}/o.json", "--start_time"),
        ("--hr {0}/HR --model their=small.pth --start_time 0.5 --output {0}/o.json", "--start_time"),
        ("--hr {0}/HR --model nano --lora {0}/none --output {0}/o.json", "{0}/none"),
    ],
)
def test_mistakes_are_one_line(arguments, message, sets, capsys, monkeypatch):
    monkeypatch.delenv("FLUXSR_BENCHMARKS", raising=False)
    with pytest.raises(SystemExit) as exit_:
        evaluate(*arguments.format(sets).split())
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message.format(sets) in error and error.count("fluxsr: error:") == 1
    assert "Traceback" not in error and not (sets / "o.json").exists()


def test_the_benchmarks_are_listed(capsys):
    evaluate("--benchmark", "list")
    shown = capsys.readouterr().out
    assert "drealsr_crops" in shown and "no checksum known" in shown and "RealPhoto60" in shown


def test_help_needs_no_torch():
    code = "from fluxsr.cli.evaluate import COMMAND; COMMAND.help()"
    assert not fresh_process_modules(code) & {"torch", "torchmetrics", "fluxsr.evaluation.run"}
