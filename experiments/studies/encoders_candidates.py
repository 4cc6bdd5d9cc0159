"""The encoder study's candidates and controls: what is compared, and how each encoder is made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wm.checkpoint import load_tensors, load_weights
from wm.datasets.reader import EpisodeStore
from wm.encoders.base import Encoder, fingerprint
from wm.encoders.efficientnet_lite import NAME as EFFICIENTNET
from wm.encoders.pixels import PixelEncoder
from wm.encoders.pooled import PooledPixelEncoder, PooledTinyEncoder
from wm.encoders.registry import build_encoder, load_encoder, save_encoder
from wm.encoders.tiny import TinyEncoder
from wm.errors import CheckpointError, UnknownNameError
from wm.experiments import pretrain
from wm.experiments.atomic import write_json
from wm.experiments.bench import seconds
from wm.experiments.encode import open_encoder
from wm.experiments.run_folder import claim
from wm.objectives import OBJECTIVES
from wm.objectives.acjepa import AcjepaConfig

LIGHT = "acjepa-light"
"""`acjepa` on frames in light of their own, see `AcjepaConfig.light`."""

CONTROLS = ("untrained", "pixels", EFFICIENTNET)
NAMES = (*OBJECTIVES, LIGHT, *CONTROLS)
"""Rows of the study: the laboratory's objectives, and what they have to beat."""

WIDTH = 64
BATCH = 80
RATE_FRAMES, RATE_RUNS = 64, 5
"""Frames at a time, and how often, for the rate of an encoder; the median counts."""


@dataclass(frozen=True)
class Study:
    """What decides the figures.

    Attributes:
        data: Store of push-T's logs that the models are trained on, and the encoders unless there are `frames`.
        out: Folder of everything that the study makes.
        pretrain_steps: Of every objective.
        pretrain_episodes: Episodes of a store whose frames encoders are trained on.
        train_steps: Of every world model's predictor, and of its proposal.
        frames: Stores, of several worlds, that the encoders are trained on instead.
    """

    data: Path
    out: Path
    pretrain_steps: int = 1500
    pretrain_episodes: int = 600
    train_steps: int = 3000
    frames: tuple[Path, ...] = ()

    def claim(self) -> None:
        """Write down whose folder it is.

        Raises:
            StoreError: a store cannot be read.
            MismatchError: the folder holds a study of other data or other steps.
        """
        steps = {"pretrain": self.pretrain_steps, "train": self.train_steps}
        about = {"study": "encoders", "steps": steps, "pretrain_episodes": self.pretrain_episodes}
        frames = [EpisodeStore(path).fingerprint() for path in self.frames]
        claim(self.out, about | {"data": EpisodeStore(self.data).fingerprint(), "frames": frames})

    def folder(self, name: str, seed: int) -> Path:
        """Of an encoder."""
        return self.out / "encoders" / f"{name}-{seed}"

    def encoder(self, name: str, seed: int, pooled: bool = False) -> str:
        """What `wm train --encoder` is told; pooled: the one whose only token is the mean."""
        if name == EFFICIENTNET:
            return name
        return str(self.folder(name, seed) / ("pooled.safetensors" if pooled else "encoder.safetensors"))


def chosen(names: str | None) -> list[str]:
    """The rows between commas, in the order of `NAMES`; all when None.

    Raises:
        UnknownNameError: no such row.
    """
    wanted = list(NAMES) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in NAMES:
            raise UnknownNameError("encoder of the study", name, NAMES)
    return [name for name in NAMES if name in wanted]


def make_encoders(study: Study, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Make the encoders that are not there yet, one after the other, and measure rates that are not known yet.

    Raises:
        WmError: a store cannot be read, or a folder written.
    """
    for seed in seeds:
        for name in names:
            if available(name):
                _make(study, name, seed)
                if not _rate_file(study, name, seed).exists():
                    measure(study, name, seed)


def measure_rates(study: Study, names: Sequence[str], seeds: Sequence[int]) -> None:
    """`measure`, of the encoders that are there, whether their rates are known or not.

    Raises:
        WmError: as `measure`.
    """
    for seed in seeds:
        for name in names:
            if there(study, name, seed):
                measure(study, name, seed)


def there(study: Study, name: str, seed: int) -> bool:
    """Whether the encoder has been made; it is said where it has not."""
    if name == EFFICIENTNET:
        return available(name)
    made = Path(study.encoder(name, seed)).exists()
    if not made:
        print(f"wm: left out: {name} of seed {seed} has not been pretrained.", file=sys.stderr)
    return made


def available(name: str) -> bool:
    """Whether this machine can make it; EfficientNet's packages are optional, and it is said where they lack."""
    if name != EFFICIENTNET:
        return True
    try:
        open_encoder(name, TinyEncoder.image_size)
    except CheckpointError as error:
        print(f"wm: left out: {error}", file=sys.stderr)
        return False
    return True


def _make(study: Study, name: str, seed: int) -> None:
    out = study.folder(name, seed)
    if name not in CONTROLS:
        pretrain.run(
            study.frames or study.data, out, encoder=TinyEncoder.name, width=WIDTH, episodes=study.pretrain_episodes,
            steps=study.pretrain_steps, batch=BATCH, seed=seed,
            objective=AcjepaConfig.name if name == LIGHT else name, light=name == LIGHT,
        )  # fmt: skip
        (out / "pretrain.ckpt.safetensors").unlink(missing_ok=True)
    elif name != EFFICIENTNET and not Path(study.encoder(name, seed)).exists():
        torch.manual_seed(seed)
        encoder = PixelEncoder() if name == PixelEncoder.name else build_encoder(TinyEncoder.name, WIDTH)
        save_encoder(encoder, out / "encoder.safetensors", {"provenance": {"control": name, "seed": seed}})
    if name != EFFICIENTNET:
        _pool(out)


def _pool(folder: Path) -> None:
    """Beside an encoder, the same weights with the mean as the only token."""
    path, pooled = folder / "encoder.safetensors", folder / "pooled.safetensors"
    whole = load_encoder(path)
    if pooled.exists() and fingerprint(load_encoder(pooled)) == fingerprint(whole):
        return
    encoder: Encoder = PooledPixelEncoder() if isinstance(whole, PixelEncoder) else PooledTinyEncoder(whole.width)
    tensors, header = load_tensors(path)
    load_weights(encoder, tensors, path)
    save_encoder(encoder, pooled, {"provenance": header["provenance"]})


def _rate_file(study: Study, name: str, seed: int) -> Path:
    return study.folder(name, seed) / "rate.json"


def measure(study: Study, name: str, seed: int) -> None:
    """Frames per second of the encoder, with torch's present threads; it needs an otherwise idle machine.

    Raises:
        WmError: data or encoder cannot be read, or the encoder's folder written.
    """
    store = EpisodeStore(study.data)
    frames = torch.from_numpy(np.resize(store.frames(0), (RATE_FRAMES, *store.frames(0).shape[1:])))[None]
    encoder, _ = open_encoder(study.encoder(name, seed), store.spec.image_size)
    rate = RATE_FRAMES / seconds(lambda: encoder.encode(frames), RATE_RUNS)
    about = {"frames_per_s": rate, "runs": RATE_RUNS, "threads": torch.get_num_threads()}
    write_json(_rate_file(study, name, seed), about)
