"""Tiny random checkpoints of every public family, in the Hub's own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIDE, PATCH, WIDTH = 32, 8, 16
SHARED: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": PATCH}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2", SHARED | {"image_size": 24}),  # 24 px of positions, 32 px of picture
    "dinov2_with_registers": ("Dinov2WithRegisters", SHARED | {"image_size": 24, "num_register_tokens": 3}),
    "dinov3_vit": ("DINOv3ViT", SHARED | {"image_size": SIDE, "intermediate_size": 32, "num_register_tokens": 2}),
    "dinov3_convnext": (
        "DINOv3ConvNext",
        {"hidden_sizes": [4, 8, WIDTH], "depths": [1, 1, 1], "layer_scale_init_value": 1.0, "image_size": SIDE},
    ),
    "ijepa": ("IJepa", SHARED | {"image_size": SIDE, "intermediate_size": 32}),
    "vjepa2": (
        "VJEPA2",
        SHARED
        | {"hidden_size": 24, "crop_size": SIDE, "frames_per_clip": 8, "mlp_ratio": 2.0, "num_pooler_layers": 1}
        | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        | {"pred_num_mask_tokens": 1},
    ),
}  # fmt: skip
FAMILIES = sorted(NETWORKS)

_NORMALISED = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 0.00392156862745098,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_SQUARE, _SHORTER = {"height": SIDE, "width": SIDE}, {"shortest_edge": 36}
_BIT = {"image_processor_type": "BitImageProcessor", "size": _SHORTER, "resample": 3}
_VIT = {"image_processor_type": "ViTImageProcessor", "size": _SQUARE, "resample": 2}
_DINOV3 = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": _SQUARE, "resample": 2}
_VIDEO = {"video_processor_type": "VJEPA2VideoProcessor", "size": _SHORTER, "resample": 2}
_CROP = {"crop_size": _SQUARE, "do_center_crop": True}
_NO_CROP = {"crop_size": None, "do_center_crop": None}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "dinov2": _NORMALISED | _BIT | _CROP,
    "dinov2_with_registers": _NORMALISED | _BIT | _CROP,
    "dinov3_vit": _NORMALISED | _DINOV3 | _NO_CROP,
    "dinov3_convnext": _NORMALISED | _DINOV3 | _NO_CROP,
    "ijepa": _NORMALISED | _VIT,
    "vjepa2": _NORMALISED | _VIDEO | _CROP,
}


def write_checkpoint(folder: Path, family: str, seed: int = 0, **config: Any) -> Path:
    """A random network with changes to its configuration, and its preprocessing."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    name, usual = NETWORKS[family]
    network = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**usual | config))
    network.save_pretrained(folder)
    kind = "video_preprocessor_config.json" if family == "vjepa2" else "preprocessor_config.json"
    (folder / kind).write_text(json.dumps(PREPROCESSORS[family]))
    return folder


def pictures(height: int, width: int, count: int = 2) -> torch.Tensor:
    """Smooth shapes and noise, ``(1, count, height, width, 3)`` uint8."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    smooth = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(smooth, (height, width), mode="bilinear") * 200
    noise = torch.rand(count, 3, height, width, generator=generator) * 55
    return (smooth + noise).to(torch.uint8).permute(0, 2, 3, 1)[None]
