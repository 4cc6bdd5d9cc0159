"""Core types that flow between the sub-packages.

Dimension glossary, in this order when they meet:

=====  ==================================================================
``B``  planning problems, or batch
``S``  candidate action sequences
``T``  time (frames)
``H``  horizon (latent steps ahead)
``F``  frameskip: control steps in one latent step
``N``  tokens of a frame
``D``  width of a token
``A``  numbers in one latent step's action: F times the robot's action width
``P``  numbers of proprioception
``C``  energy or guardrail terms
=====  ==================================================================

Three clocks: the *control step* (one ``env.step``), the *latent step* (``F`` control steps, one call of the
predictor), the *macro step* (several latent steps).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Latent:
    """Representation of frames: what the encoder and state head see, and what the predictor predicts.

    Attributes:
        tokens: ``(B, T, N, D)``. One pooled token is just N = 1.
        proprio: ``(B, T, P)`` in the robot's raw units, or None when the robot reports none.
    """

    tokens: Float[Tensor, "B T N D"]
    proprio: Float[Tensor, "B T P"] | None = None


@dataclass(frozen=True)
class Trajectory:
    """Imagined outcome of candidate action sequences: what energies and guardrails look at.

    Attributes:
        actions: ``(B, S, H, A)`` in the robot's raw units.
        tokens: ``(B, S, H, N, D)``, the latents *after* each latent step (never the current one).
        proprio: ``(B, S, H, P)`` predicted proprioception after each latent step, raw units, or None.
        path: ``(B, S, H, K, 4)`` the robot's own x, y, vx, vy (px or m, per second) at K instants inside each
            latent step, from its known kinematics with no learned part, or None when the robot declares none.
    """

    actions: Float[Tensor, "B S H A"]
    tokens: Float[Tensor, "B S H N D"]
    proprio: Float[Tensor, "B S H P"] | None = None
    path: Float[Tensor, "B S H K 4"] | None = None


@dataclass(frozen=True)
class Plan:
    """What a solver returns for B planning problems.

    Attributes:
        actions: ``(B, H, A)`` best feasible-first action sequence, raw units, inside the bounds.
        tokens: ``(B, H, N, D)`` imagined latents of that sequence.
        energy: ``(B,)`` its total energy.
        energy_terms: name to ``(B,)``, weighted terms that sum to ``energy``.
        margins: guardrail name to ``(B, H)``; >= 0 is safe. Unit: the guardrail's.
        feasible: ``(B,)`` bool, every margin >= 0 over the whole horizon.
        trace: best energy after each iteration, one ``(B,)`` tensor per iteration.
        iterations: number of iterations that ran.
        candidates: action sequences that were rolled out for each problem, as counted in a receding horizon; 0 where
            nobody counted.
        milliseconds: wall time of the search.
        stopped_by: ``"iterations"``, ``"deadline"``, ``"converged"``, or ``"enough"`` where all energies are.
    """

    actions: Float[Tensor, "B H A"]
    tokens: Float[Tensor, "B H N D"]
    energy: Float[Tensor, " B"]
    energy_terms: dict[str, Tensor]
    margins: dict[str, Tensor]
    feasible: Tensor
    trace: list[Tensor] = field(default_factory=list)
    iterations: int = 0
    candidates: int = 0
    milliseconds: float = 0.0
    stopped_by: str = "iterations"
