"""Prints the help of ``fluxsr fit``, ``validate``, ``test`` and ``predict`` without importing the libraries that train."""

from __future__ import annotations

from fluxsr.cli._support.command import flow

_EXAMPLES = {
    "fit": """\
  fluxsr fit --config fluxsr_nano                                                # no download, no GPU
  fluxsr fit --config fluxsr_nano --data.photos PHOTOS --trainer.max_steps 2000
  fluxsr fit --config fluxsr_flux1dev --config memory/48gb
  fluxsr fit --config FILE --model.losses.tv_lpips.weight 2 --model.losses.adl null  # null removes a term
  fluxsr fit --config FILE --ckpt_path last                                      # resume, or start
  fluxsr fit --config FILE --print_config                                        # all of it, with defaults""",
    "validate": """\
  fluxsr validate --config FILE --ckpt_path last --data.val_photos HELD_OUT_PHOTOS
  fluxsr validate --config FILE --ckpt_path CHECKPOINT --data.val_photos HELD_OUT_PHOTOS --data.val_crop 256""",
    "test": """\
  fluxsr test --config FILE --ckpt_path last --data.val_photos HELD_OUT_PHOTOS""",
    "predict": """\
  fluxsr predict --config fluxsr_nano --ckpt_path last --data.predict PHOTOS""",
}

_OPTIONS = """\
  --config FILE             YAML file, or a name (below); given again, the later file wins, key by key (-c FILE is the same)
  --print_config            print the configuration as it would be used, and stop
  --ckpt_path FILE|last     checkpoint to load; last: the newest last.ckpt below trainer.default_root_dir
  --seed_everything N       seed of new weights (default: 0)
  --model.seed N, --data.seed N
                            seed of times, noise and crops of losses; seed of the images' order, crops and damage
  --data.photos DIR         photos to train on, subfolders too
  --data.pairs DIR          teacher pairs, made by fluxsr pairs; null: none
  --data.crop N             side of the training crops in pixels
  --data.batch_size N       images of one process in one step
  --data.val_photos DIR     HR photos to validate and test on
  --data.predict DIR        images that fluxsr predict upscales
  --make_pairs.num N        number of pairs; all options of fluxsr pairs work here, and make data.pairs if it is missing
  --model.flow_weight X     weight of the objective's own loss (default: 1)
  --model.losses.NAME.weight X
                            weight of a loss term; --model.losses.NAME null removes the term
  --model.optimizer.lr X    learning rate
  --trainer.max_steps N     optimizer steps
  --trainer.devices N       GPUs of this machine
  --trainer.precision P     32-true, bf16-mixed, ...
  --trainer.default_root_dir DIR
                            where logs, checkpoints, previews and the adapter go
  -h, --help                show this page and stop
  --help_all                list every key, with its type and default: hundreds of lines
  --model.objective.help CLASS
                            list the arguments of a class; works for every key that holds a class"""

_KEYS = """\
Every key of a configuration is an option: its path in the YAML, with dots. init_args may be left out. The groups:

  model     backbone, autoencoder, objective, losses, distance, optimizer    docs/subclass.md, docs/choose.md
  data      photos, pairs, crops, batches                                    docs/start.md
  trainer   steps, devices, precision, callbacks: those of Lightning's Trainer

A class is named by class_path, with its arguments below init_args; another class keeps the arguments that it also takes.
Classes of your own are found in the current folder; model and data may have a class_path as well: docs/subclass.md.
Files merge by key, a list (trainer.callbacks) is replaced as a whole; options win over files. In a file and as an option,
null removes a loss term.

`fluxsr configs` lists the configurations that come with the package, for --config by name, and copies one.
Ctrl-C ends the run after the current step, with a checkpoint. Exit code: 0, 2 for a mistake, 130 after Ctrl-C.
"""


def help_page(name: str, what: str) -> str:
    """Return the page of one of the four commands, which begins with what it does."""
    usage = f"usage: fluxsr {name} --config FILE [--config FILE ...] [--KEY VALUE ...]"
    examples = f"examples:\n{_EXAMPLES[name]}"
    options = f"options that are used most:\n{_OPTIONS}"
    return "\n\n".join([f"{what[0].upper()}{what[1:]}.", usage, examples, options, f"{flow(_KEYS)}\n"])
