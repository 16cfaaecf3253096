"""What `--config` files say together, and what is said about those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxsr.cli._support.fit_files import dotted, merge, take_configs

BASE = """\
model:
  objective: {class_path: fluxsr.flows.FlowTrajectoryDistillation, init_args: {lr_time: 0.25}}
  losses:
    mse: {class_path: fluxsr.training.ImageTerm, init_args: {loss: fluxsr.losses.MSELoss, weight: 1.0, crop: 64}}
    adl: {class_path: fluxsr.training.FeatureTerm, init_args: {weight: 0.01}}
trainer:
  max_steps: 5
  callbacks: [a, b]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into the current folder; returns the options that name them."""
    monkeypatch.chdir(tmp_path)

    def files(*texts: str) -> list[str]:
        for number, text in enumerate(texts):
            Path(f"{number}.yaml").write_text(text, encoding="utf-8")
        return [word for number in range(len(texts)) for word in ("--config", f"{number}.yaml")]

    return files


def together(options: list[str]) -> dict:
    """All keys of the files, with their values."""
    return dotted(take_configs(options)[0].merged)


def test_a_second_file_changes_what_it_names_and_nothing_else(write):
    one = together(write(BASE))
    two = together(write(BASE, "model: {losses: {mse: {init_args: {weight: 3}}}}"))
    changed = {key for key, value in one.items() if not isinstance(value, dict) and two[key] != value}
    assert changed == {"model.losses.mse.init_args.weight"}
    assert two["model.losses.mse.init_args.weight"] == 3
    assert one.keys() == two.keys()


def test_a_second_file_adds_a_term_and_takes_one_away(write):
    new = "{class_path: fluxsr.training.LatentTerm, init_args: {loss: fluxsr.losses.L1Loss}}"
    keys = together(write(BASE, f"model: {{losses: {{l1: {new}, adl: null}}}}"))
    assert set(keys["model.losses"]) == {"mse", "l1"}


def test_an_option_takes_a_term_away(write):
    for option in (["--model.losses.adl", "null"], ["--model.losses.adl=null"]):
        configuration, rest = take_configs([*write(BASE), *option, "--trainer.devices", "2"])
        assert set(configuration.merged["model"]["losses"]) == {"mse"}
        assert rest == ["--trainer.devices", "2"]


def test_a_list_is_replaced_and_null_is_a_value_elsewhere(write):
    keys = together(write(BASE, "trainer: {callbacks: [c], max_steps: null}"))
    assert keys["trainer.callbacks"] == ["c"]
    assert keys["trainer.max_steps"] is None


def test_another_class_keeps_the_arguments_that_it_takes():
    base = {"class_path": "fluxsr.training.ImageTerm", "init_args": {"weight": 2.0, "crop": 64}}
    for change in ({"class_path": "fluxsr.training.LatentTerm"}, "fluxsr.training.LatentTerm"):
        expected = {"class_path": "fluxsr.training.LatentTerm", "init_args": {"weight": 2.0}}
        assert merge(base, change) == expected
    assert merge(base, {"class_path": "fluxsr.training.LatentTerm", "init_args": {"weight": 5}})["init_args"] == {
        "weight": 5
    }
    assert merge(base, {"init_args": {"crop": None}})["init_args"] == {"weight": 2.0, "crop": None}
    assert merge("fluxsr.flows.FlowMatching", {"init_args": {"a": 1}}) == {
        "class_path": "fluxsr.flows.FlowMatching",
        "init_args": {"a": 1},
    }


def test_numbers_and_interpolations_come_through(write):
    configuration, _ = take_configs(write("a: 1e-3\nb: ${...x}\nc: 5.0e-5\nd: 'yes'\ne: 12345678901234567890\n"))
    expected = {"a": 0.001, "b": "${...x}", "c": 5e-5, "d": "yes", "e": 12345678901234567890}
    assert configuration.merged == expected


def test_the_place_of_a_name_is_in_the_last_file_that_has_it(write):
    configuration, _ = take_configs(write(BASE, "trainer: {max_steps: 9}"))
    for asked, place in (
        (("trainer", "max_steps"), "1.yaml: trainer.max_steps"),
        (("trainer", "max_steps", "5"), "0.yaml: trainer.max_steps"),
        (("trainer", "callbacks"), "0.yaml: trainer.callbacks"),
        (("model", "mse", "fluxsr.training.ImageTerm"), "0.yaml: model.losses.mse"),
        (("trainer", "devices"), ""),
        (("trainer", "steps"), ""),
    ):
        assert configuration.place(*asked) == place


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ["0.yaml"]),
        ("# a comment\n", ["0.yaml"]),
        ("- a\n- b\n", ["0.yaml"]),
        ("model:\n\tlosses: 1\n", ["0.yaml", "line 2"]),
        ("model:\n  a: [1, 2\nb: 3\n", ["0.yaml", "line 3"]),
        ("model: {tile: 3, tile: 4}", ["0.yaml", "tile"]),
        ("model: {a: {class_path: x.Y, init_arg: {b: 1}}}", ["0.yaml: model.a", "'init_arg'", "init_args?"]),
        ("model: {losses: {msee: {init_args: {weight: 1}}}}", ["0.yaml: model.losses.msee", "class_path"]),
    ],
)
def test_a_file_that_is_wrong_is_named(write, text, named):
    with pytest.raises(ValueError, match=r"0\.yaml") as raised:
        take_configs(write(text))
    assert all(word in str(raised.value) for word in named)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--config", "min.yaml"], ["min.yaml", "mine.yaml?"]),
        (["--config=fluxsr_nan"], ["fluxsr_nan", "fluxsr_nano?"]),
        (["--config=."], ["--config ."]),
        (["--config"], ["--config"]),
        (["--config", "photo.yaml"], ["photo.yaml"]),
    ],
)
def test_a_file_that_is_not_there(write, options, named):
    write(BASE)
    Path("mine.yaml").write_text(BASE)
    Path("photo.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"config|yaml") as raised:
        take_configs(options)
    assert all(word in str(raised.value) for word in named)


def test_a_term_that_there_is_not(write):
    files = write(BASE)
    for option in (
        "--model.losses.msee.init_args.weight=2",
        "--model.losses.msee.weight=2",
        "--model.losses.msee=null",
    ):
        with pytest.raises(ValueError, match=rf"^{option.partition('=')[0]}: .*mse\?"):
            take_configs([*files, option])
    with pytest.raises(ValueError, match=r"^1\.yaml: model\.losses\.msee: .*mse\?"):
        take_configs(write(BASE, "model: {losses: {msee: {init_args: {weight: 2}}}}"))
    # One that the options make.
    made = ["--model.losses.new=fluxsr.training.ImageTerm", "--model.losses.new.init_args.weight=2"]
    assert take_configs([*files, *made])[1] == made
    assert take_configs([*files, "--model.losses.new", "x.Y", *made[1:]])[1] == ["--model.losses.new=x.Y", made[1]]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_the_later_file_wins_where_a_class_is_named_too(tmp_path, order):
    """Whether a file says plain keys or the class' arguments makes no difference."""
    texts = [
        "model: {flow_weight: 2, losses: {a: {class_path: x.Y, init_args: {weight: 1}}}}\n",
        "model: {class_path: my.SR, init_args: {flow_weight: 3}}\n",
        "model: {flow_weight: 4}\n",
    ]
    options = []
    for number in order:
        (tmp_path / f"{number}.yaml").write_text(texts[number])
        options += ["--config", str(tmp_path / f"{number}.yaml")]
    losses = {"a": {"class_path": "x.Y", "init_args": {"weight": 1}}}
    arguments = {"flow_weight": {0: 2, 1: 3, 2: 4}[order[-1]], "losses": losses}
    assert take_configs(options)[0].merged["model"] == {"class_path": "my.SR", "init_args": arguments}
    last = [*options, "--model.class_path", "my.Other"]
    assert take_configs(last)[0].merged["model"]["class_path"] == "my.Other"
