"""The world model: a frozen encoder, a state head and a predictor under one specification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wm.checkpoint import load_tensors, load_weights, require_finite, save_tensors
from wm.encoders.base import Encoder
from wm.encoders.registry import blank_encoder
from wm.errors import BadInputError, CheckpointError
from wm.joint import JointModel
from wm.logs import Moments
from wm.patch_dynamics import PatchDynamics
from wm.patch_head import PatchHead
from wm.predictor import Predictor
from wm.proposal import Proposal
from wm.rollout import prepare
from wm.specs import ModelSpec, require_equal
from wm.state_head import StateHead
from wm.stroke_predictor import StrokePredictor, require_segment
from wm.types import Latent, Trajectory

FORMS = ("compact", "patch", "strokes")
"""Of world models; see `wm.specs.ModelSpec`."""

BANK = 2048
"""Training states kept for `WorldModel.unfamiliarity`."""

FIELD_PROPOSAL = 256
"""Width of a proposal's layers in the patch form, whose `ModelSpec.hidden` is that of a transformer."""


class WorldModel(nn.Module):
    """Frames and proprioception in, predicted representations out; raw units at every boundary.

    Args:
        spec: What the parts have to agree with.
        encoder: Frozen.
        joint: State head and predictor.
        proposal: Action sequences for a goal, or None.
        actions: Moments of one control step's action in the training log.
        proprio: Moments of the proprioception, or None when the robot reports none.
    """

    bank: Tensor
    usual_distance: Tensor
    action_moments: Tensor
    proprio_moments: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Encoder,
        joint: JointModel,
        proposal: Proposal | None,
        actions: Moments,
        proprio: Moments | None,
    ) -> None:
        super().__init__()
        self.spec, self.encoder, self.joint, self.proposal = spec, encoder, joint, proposal
        self.register_buffer("action_moments", torch.stack([actions.mean, actions.std]))
        width = 0 if spec.env.proprio is None else spec.env.proprio.width
        moments = torch.zeros(2, width) if proprio is None else torch.stack([proprio.mean, proprio.std])
        self.register_buffer("proprio_moments", moments)
        self.register_buffer("bank", torch.zeros(BANK, spec.width * (1 if spec.form == "patch" else spec.tokens)))
        self.register_buffer("usual_distance", torch.ones(()))
        self._spaced: tuple[Tensor, Tensor, float | None] | None = None  # bank, scale, and their spacing
        self.requires_grad_(False)
        self.eval()

    @property
    def grid(self) -> int | None:
        """Side of the grid that the state tokens form; None where they form none."""
        return None if self.spec.form == "compact" else self.spec.encoder.grid

    def compact_predictor(self, use: str) -> Predictor:
        """The predictor of a compact model.

        Raises:
            BadInputError: another form; names ``use``, what it is wanted for.
        """
        predictor = self.joint.predictor
        if not isinstance(predictor, Predictor):
            raise BadInputError(f"{use}: expected a model of form 'compact', came '{self.spec.form}'.")
        return predictor

    @property
    def action_width(self) -> int:
        """A: numbers in one latent step's action."""
        return self.spec.frameskip * self.spec.env.action.width

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "B T H W 3"], proprio: Float[Tensor, "B T P"] | None = None) -> Latent:
        """State tokens of observed frames.

        Args:
            frames: RGB, of the encoder's picture size.
            proprio: Raw units. A goal picture comes without.

        Raises:
            BadInputError: wrong picture size, or non-finite proprioception.
        """
        if proprio is not None and not bool(torch.isfinite(proprio).all()):
            raise BadInputError(f"proprio: expected finite numbers, came {proprio.flatten().tolist()}.")
        tokens = self.encoder.encode(frames)
        state = self.joint.head(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return Latent(state, proprio)

    def imagine(self, context: Latent, actions: Float[Tensor, "B S H A"]) -> Trajectory:
        """Roll candidate actions out from the observed context, once; see `imagination`."""
        return self.imagination(context)(actions)

    def imagination(self, context: Latent) -> Callable[[Tensor], Trajectory]:
        """The rollout of candidate actions from the observed context.

        What all candidates share is computed here, once per context, however often the answer is called: the history's
        part of the first layer, or in the patch form the keys and values of the history's frames.

        Args:
            context: The last `history` observed frames, one latent step apart, oldest first, with proprioception when
                the robot reports it.

        Returns:
            Actions ``(B, S, H, A)`` in raw units to what they lead to. Where they require gradients and these are
            enabled, the trajectory passes them on.

        Raises:
            BadInputError: the context's length or proprioception is not what the model was trained with.
        """
        with torch.inference_mode(False), torch.no_grad():  # what was made in inference mode no gradient can pass
            roll = prepare(self.joint.predictor, self._state_vectors(context))
        latent, shape = self.spec.tokens * self.spec.width, (self.spec.tokens, self.spec.width)

        def imagine(actions: Float[Tensor, "B S H A"]) -> Trajectory:
            with torch.inference_mode(not (torch.is_grad_enabled() and actions.requires_grad)):
                mean, std = self.action_moments
                normalised = (actions.unflatten(-1, (self.spec.frameskip, -1)) - mean) / std
                states = roll(normalised.flatten(-2))
                proprio = None
                if context.proprio is not None:
                    mean, std = self.proprio_moments
                    proprio = states[..., latent:] * std + mean
                return Trajectory(actions, states[..., :latent].unflatten(-1, shape), proprio)

        return imagine

    @torch.inference_mode()
    def propose(
        self, context: Latent, goal: Float[Tensor, "B N D"], steps: Sequence[int]
    ) -> Float[Tensor, "B S H A"] | None:
        """Action sequences to start a search from, K for each of `steps`; None when the model has no proposal.

        Args:
            context: As in `imagine`.
            goal: Latent of the goal picture.
            steps: Latent steps, 1 … `spec.reach`, after which the goal is to be reached; from then on the actions are
                zero.

        Returns:
            Raw units, not clipped; H is `spec.reach`.
        """
        if self.proposal is None:
            return None
        if self.spec.read_out:
            context, goal = Latent(self.read_out(context.tokens), context.proprio), self.read_out(goal)
        vectors, (mean, std), found = self._state_vectors(context), self.action_moments, []
        for count in steps:
            wanted = torch.full((len(vectors),), float(count))
            actions = self.proposal(vectors, goal.flatten(1), wanted).unflatten(-1, (self.spec.frameskip, -1))
            actions = (actions * std + mean).flatten(-2)
            actions[:, :, count:] = 0.0
            found.append(actions)
        return torch.cat(found, dim=1)

    def goal_scale(self, robot_weight: float) -> Float[Tensor, "N D"]:
        """Divisors of the goal distance that give the latent's read-out of proprioception a weight of its own.

        Args:
            robot_weight: > 0; 1 counts its numbers like the others. Only the compact form's latent has such a read-out,
                and what is read out of the patch form's: then N is 1 and D its numbers.
        """
        shape = (1, self.spec.read_out) if self.spec.read_out else (self.spec.tokens, self.spec.width)
        scale = torch.ones(shape[0] * shape[1])
        if self.spec.env.proprio is not None and (self.spec.form == "compact" or self.spec.read_out):
            scale[-self.spec.env.proprio.width :] = robot_weight**-0.5
        return scale.unflatten(0, shape)

    def read_out(self, tokens: Float[Tensor, "*n N D"]) -> Float[Tensor, "*n 1 R"]:
        """The state that is read out of the patch form's tokens, observed or imagined; passes gradients on.

        Raises:
            BadInputError: the model has no such read-out (`PatchSizes.read_out`).
        """
        if not self.spec.read_out:
            raise BadInputError(f"read-out: expected a model that has one, came form '{self.spec.form}' without it.")
        found: Tensor = self.joint.head.read(tokens)
        return found

    def _state_vectors(self, context: Latent) -> Float[Tensor, "B T X"]:
        history = self.spec.history
        if context.tokens.shape[1] != history:
            raise BadInputError(f"context: expected {history} frames, came {context.tokens.shape[1]}.")
        if (context.proprio is None) != (self.spec.env.proprio is None):
            wanted = "none" if self.spec.env.proprio is None else f"{self.spec.env.proprio.names}"
            raise BadInputError(
                f"proprio: the model expects {wanted}, came {'none' if context.proprio is None else 'some'}."
            )
        vectors = context.tokens.flatten(2)
        if context.proprio is None:
            return vectors
        mean, std = self.proprio_moments
        return torch.cat([vectors, (context.proprio - mean) / std], dim=-1)

    @torch.inference_mode()
    def unfamiliarity(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T"]:
        """How unlike the training data pictures are, in latent space.

        Distance of a frame's state to the nearest of `BANK` training states, over the 99th percentile of that distance
        on held-out frames of the log. Above 1 is unusual. In the patch form it is the mean token's, for a bank of whole
        fields would be many times larger than the model.
        """
        states = self._summary(self.encode(frames).tokens.flatten(2))
        return self._nearest(states.flatten(0, 1)).unflatten(0, states.shape[:2]) / self.usual_distance

    def _summary(self, states: Float[Tensor, "*n K"]) -> Float[Tensor, "*n L"]:
        """What of states is compared with the bank."""
        if self.spec.form != "patch":
            return states
        return states.float().unflatten(-1, (self.spec.tokens, self.spec.width)).mean(-2)

    def spacing(self, scale: Float[Tensor, "N D"]) -> float | None:
        """How near remembered states of the training log are to each other, by the goal distance.

        Args:
            scale: Divisors of the goal distance, as of `goal_scale`.

        Returns:
            Median, over an eighth of the remembered states, of the mean squared difference to the nearest other one;
            None in another form than the compact one, whose goal distance is another, and of a log so short that fewer
            than half of the `BANK` remembered states are different ones.
        """
        if self.spec.form != "compact":
            return None
        known = self._spaced
        if known is None or not (torch.equal(known[0], self.bank) and torch.equal(known[1], scale)):
            known = self._spaced = self.bank.clone(), scale.clone(), self._measure_spacing(scale)
        return known[2]

    def _measure_spacing(self, scale: Float[Tensor, "N D"]) -> float | None:
        states = (self.bank / scale.flatten()).unique(dim=0)  # a short log is remembered more than once
        if 2 * len(states) < len(self.bank):
            return None
        distances = torch.cdist(states[::8], states, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(2, largest=False).values[:, 1]  # the first is the state itself
        return float(nearest.square().median()) / states.shape[1]

    def remember(self, training: Float[Tensor, "M K"], held_out: Float[Tensor, "O K"]) -> None:
        """Set what `unfamiliarity` compares with: at least `BANK` training states, and held-out states."""
        self.bank.copy_(self._summary(training[torch.linspace(0, len(training) - 1, BANK).long()]))
        self.usual_distance.copy_(self._nearest(self._summary(held_out).to(self.bank)).quantile(0.99))

    def _nearest(self, states: Float[Tensor, "M L"]) -> Float[Tensor, " M"]:
        """Distance to the bank; by differences, for mean tokens hardly differ beside their size."""
        return torch.cdist(states, self.bank, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)

    def save(self, path: Path, provenance: dict[str, object]) -> None:
        """Write weights and spec; `provenance` (command, seed, data recipe, versions) travels in the header."""
        header = {"kind": "world-model", "spec": self.spec.to_json(), "provenance": provenance}
        save_tensors(path, dict(self.state_dict()), header)


def build_model(spec: ModelSpec, encoder: Encoder, actions: Moments, proprio: Moments | None) -> WorldModel:
    """Assemble an untrained model on an encoder.

    Raises:
        BadInputError: as `build_joint`.
        MismatchError: the encoder is not the spec's.
    """
    require_equal("encoder", spec.encoder, encoder.spec())
    return WorldModel(spec, encoder, build_joint(spec), build_proposal(spec), actions, proprio)


def build_joint(spec: ModelSpec) -> JointModel[Any]:
    """Head and predictor of the spec's form and sizes, freshly initialised.

    Raises:
        BadInputError: no such form, or one that does not suit the world or its sizes.
    """
    if spec.form == "strokes":
        return _strokes(spec)
    if spec.form == "patch":
        return _patch(spec)
    if spec.form != "compact":
        raise BadInputError(f"form of a world model: expected one of {FORMS}, came '{spec.form}'.")
    proprio = 0 if spec.env.proprio is None else spec.env.proprio.width
    head = StateHead(spec.encoder.grid, spec.encoder.width, spec.tokens, spec.width)
    state_width = spec.tokens * spec.width + proprio
    action_width = spec.frameskip * spec.env.action.width
    return JointModel(head, Predictor(state_width, action_width, spec.history, spec.hidden, spec.depth))


def _strokes(spec: ModelSpec) -> JointModel[PatchHead]:
    segment, grid = require_segment(spec.env.action.segment), spec.encoder.grid
    sizes = (spec.tokens, spec.history, spec.frameskip, spec.proposals)
    if sizes != (grid * grid, 1, 1, 0) or spec.env.proprio is not None:
        raise BadInputError(
            f"form 'strokes': expected {grid * grid} tokens, 1 frame of history, frameskip 1, no proposals and no "
            f"proprioception, came {sizes} and {spec.env.proprio}."
        )
    head = PatchHead(grid, spec.encoder.width, spec.width)
    return JointModel(head, StrokePredictor(grid, spec.width, segment, spec.hidden, spec.depth))


def _patch(spec: ModelSpec) -> JointModel[PatchHead]:
    grid, most = spec.encoder.grid, spec.encoder.width
    if spec.patch is None or spec.tokens != grid * grid or not 1 <= spec.width <= most:
        raise BadInputError(
            f"form 'patch': expected {grid * grid} tokens of 1 to {most} numbers and the sizes of its predictor, "
            f"came {spec.tokens} of {spec.width} and {spec.patch}."
        )
    proprio = 0 if spec.env.proprio is None else spec.env.proprio.width
    action_width = spec.frameskip * spec.env.action.width
    sizes = (spec.tokens, spec.width, proprio, action_width, spec.history, spec.reach, spec.hidden, spec.depth)
    return JointModel(PatchHead(grid, most, spec.width, spec.patch.read_out), PatchDynamics(*sizes, spec.patch))


def build_proposal(spec: ModelSpec) -> Proposal | None:
    """Proposal of the spec's sizes, freshly initialised; None when it has none."""
    if spec.proposals == 0:
        return None
    proprio = 0 if spec.env.proprio is None else spec.env.proprio.width
    latent, action_width = spec.tokens * spec.width, spec.frameskip * spec.env.action.width
    hidden, patches = (FIELD_PROPOSAL, spec.tokens) if spec.form == "patch" else (spec.hidden, 0)
    if spec.read_out:
        latent, hidden, patches = spec.read_out, spec.hidden, 0
    sizes = (latent + proprio, latent, action_width, spec.history, spec.proposals, spec.reach, hidden)
    return Proposal(*sizes, patches)


def load_model(path: Path) -> tuple[WorldModel, dict[str, object]]:
    """A model file and its provenance.

    A public encoder is not in the file. It is found by its name (`wm.encoders.registry.blank_encoder`), without a
    download, and has to be the very one.

    Raises:
        CheckpointError: missing, truncated, not a world model, weights that do not fit its own spec, or a public
            encoder that is not on this machine.
        MismatchError: another encoder of that name.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != "world-model":
        raise CheckpointError(f"{path}: expected a world model, came '{header.get('kind')}'.")
    try:
        model, provenance = _blank_model(ModelSpec.from_json(header["spec"]), path), dict(header["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path}: expected the specification of a world model, it cannot be read ({reason})."
        ) from error
    require_finite(tensors, path)
    load_weights(model, tensors, path)
    require_equal("encoder fingerprint", model.spec.encoder.fingerprint, model.encoder.spec().fingerprint, path)
    return model, provenance


def _blank_model(spec: ModelSpec, path: Path) -> WorldModel:
    encoder = blank_encoder(spec.encoder, path.parent)
    width = 0 if spec.env.proprio is None else spec.env.proprio.width
    blank = Moments.none(spec.env.action.width)
    proprio = None if spec.env.proprio is None else Moments.none(width)
    return WorldModel(spec, encoder, build_joint(spec), build_proposal(spec), blank, proprio)
