"""Specifications that travel inside every checkpoint and every dataset.

They are plain frozen dataclasses of JSON values. A mismatch between two of them is refused with both values in the
message (`require_equal`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from wm.errors import CheckpointError, MismatchError

SpecT = TypeVar("SpecT", bound="_Spec")


@dataclass(frozen=True)
class _Spec:
    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls: type[SpecT], data: dict[str, Any]) -> SpecT:
        """Build from `to_json`'s output.

        Raises:
            CheckpointError: a field is missing or unknown.
        """
        return cls(**{k: _freeze(v) for k, v in cls._fields_of(data).items()})

    @classmethod
    def _fields_of(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A copy of the data, its field names checked; one with a default may be missing (an older file's)."""
        names = {f.name for f in dataclasses.fields(cls)}
        needed = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        if not needed <= set(data) <= names:
            raise CheckpointError(f"{cls.__name__}: expected the fields {sorted(names)}, came {sorted(data)}.")
        return dict(data)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class ActionSpec(_Spec):
    """One control step's action.

    Attributes:
        names: One name per number, e.g. ``("dx", "dy")``.
        unit: Unit of the numbers, e.g. ``"100 px"``.
        low: Lower bounds, raw units.
        high: Upper bounds, raw units.
        control_hz: Control steps per second.
        segment: Where an action is a segment x0, y0, x1, y1 in the picture's plane (the origin in its middle, y
            upwards): half sides of the picture per unit. None where it is not.
    """

    names: tuple[str, ...]
    unit: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    control_hz: float
    segment: float | None = None

    @property
    def width(self) -> int:
        """Numbers in one control step's action."""
        return len(self.names)


@dataclass(frozen=True)
class ProprioSpec(_Spec):
    """What the robot reports of itself: names and units, e.g. ``("x", "y", "vx", "vy")`` in px and px/s."""

    names: tuple[str, ...]
    units: tuple[str, ...]

    @property
    def width(self) -> int:
        """Numbers in one proprioceptive reading."""
        return len(self.names)


@dataclass(frozen=True)
class EncoderSpec(_Spec):
    """A frozen encoder: uint8 frames ``(B, T, H, W, 3)`` to tokens ``(B, T, N, D)``.

    Attributes:
        name: e.g. ``"wm-tiny"``.
        image_size: Side of the square picture it takes, pixels.
        grid: Side of the token grid; N = grid * grid.
        width: D, numbers per token.
        fingerprint: SHA-256 of its weights (first 16 hex digits); features cached with another one are refused.
    """

    name: str
    image_size: int
    grid: int
    width: int
    fingerprint: str


@dataclass(frozen=True)
class EnvSpec(_Spec):
    """What a dataset or model knows of the world it belongs to.

    Attributes:
        env: Short name, e.g. ``"pusht"``.
        action: The robot's action.
        proprio: The robot's own sensors, or None.
        state_names: Names of the simulator's true state (a diagnostic; never an input of a model).
    """

    env: str
    action: ActionSpec
    proprio: ProprioSpec | None
    state_names: tuple[str, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Build from `to_json`'s output."""
        data = cls._fields_of(data)
        data["action"] = ActionSpec.from_json(data["action"])
        data["proprio"] = None if data["proprio"] is None else ProprioSpec.from_json(data["proprio"])
        return super().from_json(data)


@dataclass(frozen=True)
class PatchSizes(_Spec):
    """Sizes of the patch form's predictor (`wm.patch_predictor`) beside `ModelSpec.hidden` and `depth`.

    The defaults suit a laptop's processor. DINO-WM's own are ``PatchSizes(16, 64, 10, 10, window=3, residual=False)``
    with hidden 2048 and depth 6.

    Attributes:
        heads: Attention heads.
        head_width: Numbers per head.
        proprio_embedding: Numbers that the robot's proprioception becomes.
        action_embedding: Numbers that a latent step's action becomes.
        window: Longest window, frames; a longer rollout lets it slide. 0: as long as history and reach need, so that
            up to `ModelSpec.reach` latent steps nothing slides and every key and value is kept.
        residual: The predictor says what changes; without, what the next frame is.
        read_out: R, numbers of the state that is read out of all tokens of a frame (`wm.patch_head`): what goals are
            compared in. As `ModelSpec.width` in the compact form, the last P of them are a read-out of proprioception.
            0: there is none.
    """

    heads: int = 6
    head_width: int = 32
    proprio_embedding: int = 8
    action_embedding: int = 8
    window: int = 0
    residual: bool = True
    read_out: int = 0


@dataclass(frozen=True)
class ModelSpec(_Spec):
    """Everything that has to agree before a world model may be used.

    Attributes:
        env: The world whose logs trained it.
        encoder: The frozen encoder under it.
        frameskip: F, control steps per latent step.
        history: Context frames (>= 2 in the compact and the patch form; velocity is not visible in one).
        tokens: N of the state head.
        width: D of the state head; in the compact form, with proprioception, its last P numbers are a read-out of it
            from the picture.
        hidden: Width of the predictor's hidden layers.
        depth: Residual blocks of the predictor; transformer layers in the patch form.
        proposals: K, action sequences that the model proposes for a goal; 0: it has no proposal.
        reach: H, their latent steps.
        form: ``"compact"``: few tokens for the whole frame; ``"patch"``: a token per patch, predicted by a
            frame-causal transformer as in DINO-WM (`wm.patch_dynamics`); or ``"strokes"``: a token per patch, in a
            world at rest whose action is a segment of the picture's plane (`wm.stroke_predictor`).
        patch: More sizes of the patch form; None in the others.
    """

    env: EnvSpec
    encoder: EncoderSpec
    frameskip: int
    history: int
    tokens: int
    width: int
    hidden: int
    depth: int
    proposals: int = 0
    reach: int = 5
    form: str = "compact"
    patch: PatchSizes | None = None

    @property
    def read_out(self) -> int:
        """R of the patch form's read-out, 0 where there is none."""
        return 0 if self.patch is None else self.patch.read_out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        """Build from `to_json`'s output."""
        data = cls._fields_of(data)
        if data.get("patch") is not None:
            data["patch"] = PatchSizes.from_json(data["patch"])
        data["env"] = EnvSpec.from_json(data["env"])
        data["encoder"] = EncoderSpec.from_json(data["encoder"])
        return super().from_json(data)


def require_equal(what: str, expected: object, came: object, where: object = "") -> None:
    """Refuse a mismatch, naming the quantity and both values.

    Raises:
        MismatchError: ``expected != came``.
    """
    if expected != came:
        raise MismatchError(what, expected, came, where)
