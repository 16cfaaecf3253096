"""Run every benchmark and print its ratios with the machine they were measured on."""

import logging
import os
import platform
import warnings

import torch

from benchmarks import backbone, degradation, training_step, tv_lpips, upscale

if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for module in (training_step, backbone, degradation, tv_lpips, upscale):
        print(f"\n{module.__name__.removeprefix('benchmarks.')}: {module.__doc__.strip().splitlines()[0]}")
        module.main()
