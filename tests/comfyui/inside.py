"""Runs in ComfyUI's own interpreter, in its folder: a tiny FLUX in its classes, our adapter in its stock loader, one step.

Arguments: a folder with ``bfl.safetensors`` (a whole tiny FLUX), ``lora.safetensors``, ``case.safetensors`` (latents,
prompt_embeds, pooled), ``numbers.json``; and ComfyUI's own options after ``--``. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Do it all."""
    folder = Path(sys.argv[1])
    pack = sys.argv[2]
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, str(Path.cwd()))

    import comfy.options

    comfy.options.enable_args_parsing()

    import comfy.lora
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import comfy.utils
    import nodes
    import torch
    from safetensors.torch import load_file, save_file

    numbers = json.loads((folder / "numbers.json").read_text())
    case = load_file(folder / "case.safetensors")

    began = time.perf_counter()
    before = set(sys.modules)
    assert asyncio.run(nodes.load_custom_node(pack)), "the pack was not loaded"
    import_seconds = time.perf_counter() - began

    config = comfy.supported_models.Flux({**numbers["unet_config"], "image_model": "flux", "dtype": torch.float32})
    config.set_inference_dtype(torch.float32, None)
    with torch.inference_mode():
        flux = comfy.model_base.Flux(config)
        weights = load_file(folder / "bfl.safetensors")
        # Later ComfyUIs name the scale of a norm its weight.
        known = set(flux.diffusion_model.state_dict())
        weights = {key if key in known else key.replace(".scale", ".weight"): tensor for key, tensor in weights.items()}
        missing = flux.diffusion_model.load_state_dict(weights)
        patcher = comfy.model_patcher.ModelPatcher(
            flux, load_device=torch.device("cpu"), offload_device=torch.device("cpu")
        )

        lora = load_file(folder / "lora.safetensors")
        key_map = comfy.lora.model_lora_keys_unet(flux, {})
        unknown = [key for key in lora if key.split(".lora_")[0] not in key_map]
        adapted, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)

        node = nodes.NODE_CLASS_MAPPINGS["FluxSROneStep"]
        found = {}
        with_text = [[case["prompt_embeds"], {"pooled_output": case["pooled"]}]]
        options = {"start_time": numbers["start_time"], "guidance": numbers["guidance"]}
        for name, model, positive, strength, steps in (
            ("base", patcher, with_text, 1.0, 1),
            ("no_text", patcher, None, 1.0, 1),
            ("lora", adapted, with_text, 1.0, 1),
            ("half", patcher, with_text, 0.5, 1),
            ("three", patcher, with_text, 1.0, 3),
        ):
            latent = {"samples": flux.latent_format.process_out(case["latents"])}
            out = node.execute(model, latent, strength=strength, steps=steps, positive=positive, **options).args[0]
            found[name] = flux.latent_format.process_in(out["samples"]).contiguous()

        try:
            node.execute(patcher, {"samples": torch.zeros(1, 4, 8, 8)}, strength=1.0, steps=1, **options)
            refused = ""
        except ValueError as error:
            refused = str(error)

        # The pack's own model, in ComfyUI's keeping: loaded, counted, taken off again.
        load, upscale = nodes.NODE_CLASS_MAPPINGS["FluxSRLoadModel"], nodes.NODE_CLASS_MAPPINGS["FluxSRUpscale"]
        held = load.execute(
            model="nano-student", lora="none", prompt="none", guidance=0.0, dtype="auto", memory="comfyui"
        ).args[0]
        image = torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(0))
        mask = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(1))
        options = {
            "scale": 2.0,
            "width": 0,
            "height": 0,
            "strength": 1.0,
            "steps": 1,
            "tile": 0,
            "color_fix": "wavelet",
        }
        pixels, alpha = upscale.execute(held, image, mask=mask, **options).args
        found |= {"image": image, "mask": mask, "pixels": pixels.contiguous(), "alpha": alpha.contiguous()}
        loaded = [
            type(one.model).__name__
            for one in comfy.model_management.current_loaded_models
            if one.model is held.patcher
        ]
        size = held.patcher.loaded_size()
        comfy.model_management.unload_all_models()
        after = held.patcher.loaded_size()
        found["again"] = upscale.execute(held, image, mask=mask, **options).args[0].contiguous()

    save_file(found, folder / "found.safetensors")
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    print(json.dumps({
        "unknown": unknown, "missing": len(missing.missing_keys), "refused": refused, "import_seconds": import_seconds,
        "loaded": loaded, "loaded_bytes": size, "bytes_after_unloading": after, "modules": sorted(new),
        "patched": len(adapted.patches), "expected_patches": len(lora) // 2,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
