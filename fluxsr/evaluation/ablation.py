"""Runs a grid of training runs, one after the other, each resumable and in a process of its own, for one table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxsr.atomic import write_text
from fluxsr.digest import file_digest
from fluxsr.shipped_configs import config_path

if TYPE_CHECKING:
    from fluxsr.evaluation.document import Results

# Of the nano models that grids are for: their magnification, and the side of a token in pixels.
SCALE, PERIOD = 4, 8
BEGUN, FINISHED = "begun.json", "finished.json"  # with which settings a training was


@dataclass(frozen=True)
class Variant:
    """One training of the grid: the name of its row in the table, its folder, and the arguments of ``fluxsr fit``.

    ``base`` is the model that it makes an adapter of; ``None``: it exports a whole model.
    """

    name: str
    folder: Path
    arguments: list[str]
    base: str | None = None

    @property
    def weights(self) -> Path:
        """The file that the training leaves (the callback ``ExportBackbone``)."""
        return self.folder / "backbone.safetensors"

    @property
    def model(self) -> Path:
        """The file that is measured: what the training leaves, or the base with that adapter fused into it."""
        return self.weights if self.base is None else self.folder / "model.safetensors"

    @property
    def checkpoint(self) -> Path | None:
        """The newest last checkpoint below the folder.

        ``--ckpt_path last`` would look at the places that the configuration names, too, which all variants share.
        """
        found = [path for path in self.folder.rglob("last*.ckpt") if re.fullmatch(r"last(-v\d+)?", path.stem)]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)

    def _settings(self) -> dict[str, Any]:
        return {"arguments": self.arguments, "config": file_digest(self.arguments[1])}

    def is_finished(self) -> bool:
        """Say whether this very training ended already; a ValueError if the folder holds one with other settings."""
        now = self._settings()
        # An unfinished training does not go on under other settings, either.
        records = [path for name in (FINISHED, BEGUN) if (path := self.folder / name).is_file()]
        for record in records:
            before = json.loads(record.read_text(encoding="utf-8"))
            if before != now:
                changed = sorted(set(before["arguments"]) ^ set(self.arguments)) or [self.arguments[1]]
                raise ValueError(
                    f"{self.folder} holds a training with other settings ({', '.join(changed[:2])}); delete it, or choose "
                    "another output"
                )
        return self.folder / FINISHED in records and self.model.is_file()

    def train(self) -> None:
        """Run the training in a process of its own, from its last checkpoint if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = json.dumps(self._settings(), indent=2)
        write_text(self.folder / BEGUN, settings)
        resume = [] if self.checkpoint is None else [f"--ckpt_path={self.checkpoint}"]
        log = self.folder / "log.txt"
        with log.open("a", encoding="utf-8") as file:
            command = [sys.executable, "-m", "fluxsr", "fit", *self.arguments, *resume]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code or not self.weights.is_file():
            said = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise ValueError(f"the training {self.name!r} failed: {said} (all of it: {log})")
        if self.base is not None:
            from fluxsr.inference.export import export_model

            export_model(str(self.model), self.base, str(self.weights), fold=False, overwrite=True)
        write_text(self.folder / FINISHED, settings)


def run_ablation(
    grid: str,
    output: str,
    photos: str | None = None,
    hr: str | None = None,
    lr: str | None = None,
    metrics: Sequence[str] = ("psnr", "lpips_vgg", "lpips_alex", "dists", "artefact_db"),
    seed: int = 0,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> Results | None:
    """Train every variant of a grid, then measure all of them on the same photos, into one table.

    The grid is a YAML file: config names a configuration of fluxsr fit beside it, overrides are keys that every run
    changes, runs are named sets of further changes. If the runs train adapters, base names their model. The same
    command resumes after an interruption. Finished runs are kept, an unfinished one resumes from its last checkpoint, and
    no image is measured twice.

    Args:
        grid: The YAML file, or a shipped one by its name, for example ablation_nano.
        output: Folder of the runs, table.md and table.json.
        photos: Folder of photos to train on; none: what the configuration names, for example only teacher pairs.
        hr: Folder of HR photos to measure on; none: only train.
        lr: Folder of their LR images; by default they are degraded by Real-ESRGAN's pipeline.
        metrics: Names of metrics, as for fluxsr evaluate.
        seed: Seed of that degradation.
        say: Called with the name of each run that begins.
        progress: Is called with how many pictures are measured, and how many there are.

    Returns:
        The table, ``None`` without ``hr``.

    Raises:
        ValueError: If the grid is wrong, or a run fails.
    """
    if hr is None and lr is not None:
        raise ValueError("lr names the LR images of hr, which is missing")
    variants = read_grid(grid, output, photos)
    todo = [variant for variant in variants if not variant.is_finished()]
    say(f"{len(variants)} trainings, {len(variants) - len(todo)} of them finished already")
    for number, variant in enumerate(todo, 1):
        say(f"training {number} of {len(todo)}: {variant.name}")
        variant.train()
    if hr is None:
        return None
    from fluxsr.evaluation.comparison import compare

    return compare(
        [str(Path(output) / name) for name in ("table.json", "table.md")],
        hr=hr,
        lr=lr,
        degrade="realesrgan" if lr is None else None,
        seed=seed,
        scale=SCALE,
        model=[f"{variant.name}={variant.model}" for variant in variants],
        grid_fix=False,  # what a training does about the grid is what is asked here
        bicubic=True,
        metrics=metrics,
        period=PERIOD,
        progress=progress,
    )


def read_grid(grid: str, output: str, photos: str | None) -> list[Variant]:
    """Return the variants of a grid file."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = config_path(grid)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise ValueError(f"the grid {grid} does not exist") from None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{grid} is no YAML: {error}") from error
    known = {"config", "overrides", "runs", "base"}
    if not isinstance(content, dict) or not {"config", "runs"} <= set(content) <= known:
        raise ValueError(f"{grid} must have the keys config and runs, and may have overrides and base, nothing else")
    config, runs, overrides = path.parent / str(content["config"]), content["runs"], content.get("overrides")
    if not config.is_file():
        raise ValueError(f"{grid} names the configuration {content['config']!r}, which is not beside it")
    if not isinstance(runs, dict) or not runs:
        raise ValueError(f"runs in {grid} must name at least one variant")
    for name, keys in {"overrides": overrides, **runs}.items():
        if not isinstance(keys, dict | None):
            raise ValueError(f"{name} in {grid} must hold keys of the configuration with their values, got {keys!r}")
    variants: dict[str, Variant] = {}
    for name, changes in runs.items():
        place = re.sub(r"[^A-Za-z0-9]+", "-", str(name)).strip("-").lower()
        if not place or place in variants or "=" in str(name):
            raise ValueError(
                f"the run {name!r} of {grid} needs another name: its letters and digits, which name its folder, must be its "
                "own, and it can't have ="
            )
        folder = Path(output) / place
        arguments = ["--config", str(config), *([] if photos is None else [f"--data.photos={photos}"])]
        arguments.append(f"--trainer.default_root_dir={folder}")
        for key, value in {**(overrides or {}), **(changes or {})}.items():
            arguments.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
        variants[place] = Variant(str(name), folder, arguments, content.get("base"))
    return list(variants.values())
