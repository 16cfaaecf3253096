"""Flow trajectory distillation on another DiT: a diffusers SD3 transformer with a LoRA.

    python examples/bring_an_sd3_transformer.py

SD3's flow has FLUX's signs (t = 0 is data, the velocity is noise minus data), so the wrapper adds the text and nothing else.
The model here is tiny and random; ``SD3Transformer2DModel.from_pretrained(..., subfolder="transformer")`` takes its place.
"""

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor, nn

from fluxsr.flows import FlowTrajectoryDistillation, LatentPair


class SD3Velocity(nn.Module):
    """An SD3 transformer as a velocity model: one fixed prompt for every image, time in thousandths."""

    def __init__(self, transformer: nn.Module, prompt_embeds: Tensor, pooled_prompt_embeds: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.register_buffer("prompt_embeds", prompt_embeds)
        self.register_buffer("pooled_prompt_embeds", pooled_prompt_embeds)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.transformer(
            hidden_states=xt,
            timestep=t * 1000,
            encoder_hidden_states=self.prompt_embeds.expand(len(xt), -1, -1),
            pooled_projections=self.pooled_prompt_embeds.expand(len(xt), -1),
            return_dict=False,
        )[0]


torch.manual_seed(0)
transformer = SD3Transformer2DModel(
    sample_size=16,
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    attention_head_dim=8,
    num_attention_heads=4,
    caption_projection_dim=32,
    joint_attention_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=16,
)
transformer.requires_grad_(False)
layers = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_out"]
transformer.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=layers))
velocity = SD3Velocity(transformer, prompt_embeds=torch.zeros(1, 4, 32), pooled_prompt_embeds=torch.zeros(1, 16))

hr_latents, noise = torch.randn(2, 8, 4, 16, 16)  # your autoencoder's latents, and the noise that they came from
lr_latents = nn.functional.avg_pool2d(hr_latents, 3, stride=1, padding=1)
pair = LatentPair(hr_latents, lr_latents, noise)

objective = FlowTrajectoryDistillation(lr_time=0.5)
trained = [parameter for parameter in velocity.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-2)
for step in range(30):
    output = objective(velocity, pair)
    reconstruction = nn.functional.mse_loss(output.x0_hat, output.x0_target)  # latents; decode them for an image loss
    optimizer.zero_grad()
    (output.loss + reconstruction).backward()
    optimizer.step()
    if step % 10 == 0 or step == 29:
        print(f"step {step}: FTD {output.loss.item():.4f}, one-step restoration {reconstruction.item():.4f}")
