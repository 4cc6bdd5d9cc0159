"""Frames a second through DINOv2-S at 224 px: plain calls of the reference, and ours, in turn.

The weights are random and of the published size: rates do not depend on their values. Plain are calls of the
`transformers` model in fp32, without gradients, one frame or a batch of frames a call, on pixels that are ready. Ours
takes the frames as the robot's camera gives them, so its time holds the preprocessing too; tokens must be the same.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from torch import Tensor

from wm.encoders.registry import load_public
from wm.errors import BadInputError
from wm.experiments.atomic import write_json
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import alternate, machine, summary

BAR = 1.5
"""Frames a second of ours, in those of plain calls, whichever batch suits them better."""
PARITY = 1e-5
"""Largest difference of a token's number."""
SIZES = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}
"""DINOv2-S."""
PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "resample": 3,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def gigaflop(config: Any, tokens: int) -> float:
    """10^9 multiplications and additions in one frame's products; `tokens` with the class token."""
    width, layers = config.hidden_size, config.num_hidden_layers
    dense = (8 + 4 * config.mlp_ratio) * width**2
    pixels = 3 * config.patch_size**2
    return 1e-9 * (tokens * (layers * (dense + 4 * width * tokens) + 2 * pixels * width))


def write_dinov2(folder: Path, sizes: dict[str, int]) -> None:
    """A checkpoint of random weights in the Hub's format."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def run(frames: int, runs: int, threads: int, out: Path, sizes: dict[str, int] | None = None) -> dict[str, Any]:
    """Measure, and write it.

    Args:
        frames: In a run of each arm, and in a batch.
        runs: Of each arm; medians are taken.
        threads: Of torch.
        out: File.
        sizes: Of the network; DINOv2-S's when None.

    Raises:
        BadInputError: no frame, or no run.
    """
    if frames < 1:
        raise BadInputError(f"--frames: expected >= 1, came {frames}.")
    where = machine(threads)
    with tempfile.TemporaryDirectory() as folder:
        write_dinov2(Path(folder), sizes or SIZES)
        ours = load_public(folder)
        theirs = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = torch.randint(0, 256, (1, frames, 224, 224, 3), dtype=torch.uint8)
    pixels = ours.pixels(pictures[0])

    @torch.inference_mode()
    def plain(batch: int) -> Tensor:
        return torch.cat([theirs(part).last_hidden_state[:, 1:] for part in pixels.split(batch)])

    arms = {
        "plain, 1 frame a call": lambda: plain(1),
        f"plain, {frames} frames a call": lambda: plain(frames),
        "ours": lambda: ours.encode(pictures),
        "preprocessing of ours": lambda: ours.pixels(pictures[0]),
    }
    difference = float((plain(frames) - ours.encode(pictures)[0]).abs().max())
    seconds = alternate(arms, runs)
    work = frames * gigaflop(theirs.config, ours.grid**2 + 1)
    own = seconds["ours"]
    found: dict[str, Any] = {
        "machine": where,
        "frames": frames,
        "runs": runs,
        "gflop_a_frame": work / frames,
        "frames_per_s": {name: frames / statistics.median(each) for name, each in seconds.items()},
        "largest_difference": difference,
        "against": {
            name: summary({"theirs": each, "ours": own}, {"theirs": work, "ours": work})
            for name, each in seconds.items()
            if name.startswith("plain")
        },
    }
    found["ratio"] = min(each["ratio"] for each in found["against"].values())
    found["passed"] = found["ratio"] >= BAR and difference <= PARITY
    write_json(out, found)
    return found


def main(
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("bench/encode_rate.json"),
    frames: Annotated[int, typer.Option(help="In a run of each arm, and in the larger batch of plain calls.")] = 16,
    runs: Annotated[int, typer.Option(help="Of each arm, in turn; medians are taken.")] = 7,
    threads: Annotated[int, typer.Option(help="Of torch: as many as there are idle cores.", min=1)] = 1,
) -> None:
    """Measure our encoding beside plain calls of the reference; exit code 3 where the bar is missed."""
    found = run(frames, runs, threads, out)
    Console().print_json(data=found)
    judge(found["passed"])


if __name__ == "__main__":
    launch(main)
