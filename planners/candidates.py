"""Candidates: scored, ranked feasible first, and the best of them kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.energies import total
from wm.planners.problem import Problem


@dataclass(frozen=True)
class Scored:
    """Candidates and all that ranks them.

    Attributes:
        actions: ``(B, S, H, A)`` raw units, inside the bounds.
        tokens: ``(B, S, H, N, D)`` imagined latents.
        energy: ``(B, S)``; NaN and infinity of either sign have become +inf.
        terms: Name to ``(B, S)``.
        margins: Name to ``(B, S, H)``; >= 0 is safe.
        violation: ``(B, S)``, sum of all negative margins in their own units; 0 is feasible, a NaN margin gives +inf.
        gradient: ``(B, S, H, A)`` of energy + penalty * violation, per raw unit, where it was asked for; see `score`.
    """

    actions: Float[Tensor, "B S H A"]
    tokens: Float[Tensor, "B S H N D"]
    energy: Float[Tensor, "B S"]
    terms: dict[str, Tensor]
    margins: dict[str, Tensor]
    violation: Float[Tensor, "B S"]
    gradient: Float[Tensor, "B S H A"] | None = None

    def order(self) -> Int[Tensor, "B S"]:
        """Indices, best first: feasible before infeasible; then less violation; then less energy; then the first."""
        order = torch.argsort(self.energy, dim=1, stable=True)
        if not self.margins:
            return order
        violation = self.violation.gather(1, order)
        return order.gather(1, torch.argsort(violation, dim=1, stable=True))


def score(problem: Problem, actions: Float[Tensor, "B S H A"], penalty: float | int | None = None) -> Scored:
    """Roll the candidates out; energies, margins and, where asked for, gradients come from the same trajectory.

    Args:
        problem: What rolls out and scores.
        actions: Inside the bounds.
        penalty: Energy that one unit of violation counts in `Scored.gradient`; None: no gradient is needed.

    Returns:
        Nothing in it is part of a graph. What is not finite in the gradient of a candidate's energy, or of its
        violation, makes that part of its gradient zero; the violation's is looked at only where a rule is broken.

    Raises:
        BadInputError: gradients are asked for, and the rollout passes none on.
    """
    if penalty is None:
        return _scored(problem, actions)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = actions.clone().requires_grad_()
        scored = _scored(problem, leaf)
        if not scored.tokens.requires_grad:
            raise BadInputError(
                "this solver needs gradients, but the rollout passes none on from its actions to its tokens: "
                "it must consist of torch operations, outside torch.no_grad and torch.inference_mode."
            )
        violated = scored.violation > 0
        broken = bool(violated.any())
        gradient = _slope(scored.energy, leaf, keep_graph=broken)
        if broken:
            gradient = gradient + penalty * torch.where(violated[..., None, None], _slope(scored.violation, leaf), 0.0)
    return replace(
        scored,
        actions=actions,
        tokens=scored.tokens.detach(),
        energy=scored.energy.detach(),
        terms={name: term.detach() for name, term in scored.terms.items()},
        margins={name: margin.detach() for name, margin in scored.margins.items()},
        violation=scored.violation.detach(),
        gradient=gradient,
    )


def _slope(
    values: Float[Tensor, "B S"], actions: Float[Tensor, "B S H A"], keep_graph: bool = False
) -> Float[Tensor, "B S H A"]:
    """Gradient of every candidate's value by its own actions; zero for a candidate where it is not finite."""
    if not values.requires_grad:  # the same for all actions
        return torch.zeros_like(actions)
    # Of the sum: candidates do not depend on each other. (Given weights instead, torch first imports sympy: seconds.)
    found = torch.autograd.grad(values.sum(), actions, retain_graph=keep_graph, allow_unused=True)[0]
    if found is None:
        return torch.zeros_like(actions)
    return torch.where(torch.isfinite(found).all(-1).all(-1)[..., None, None], found, 0.0)


def _scored(problem: Problem, actions: Float[Tensor, "B S H A"]) -> Scored:
    trajectory = problem.rollout(actions)
    energy, terms = total(problem.energies, trajectory)
    energy = torch.where(torch.isfinite(energy), energy, torch.inf)
    margins = {guardrail.name: guardrail(trajectory) for guardrail in problem.guardrails}
    violation = torch.zeros_like(energy)
    for margin in margins.values():
        violation = violation + margin.clamp(max=0.0).sum(-1).neg().to(energy)
    if margins:
        violation = torch.nan_to_num(violation, nan=torch.inf, posinf=torch.inf)
    return Scored(actions, trajectory.tokens, energy, terms, margins, violation)


@dataclass(frozen=True)
class Best:
    """One candidate per problem: fields as in `Scored`, without S."""

    actions: Float[Tensor, "B H A"]
    tokens: Float[Tensor, "B H N D"]
    energy: Float[Tensor, " B"]
    terms: dict[str, Tensor]
    margins: dict[str, Tensor]
    violation: Float[Tensor, " B"]

    @classmethod
    def of(cls, scored: Scored, index: Int[Tensor, " B"]) -> Best:
        """Candidate ``index[b]`` of every problem b."""
        rows = torch.arange(len(index), device=index.device)
        return cls(
            actions=scored.actions[rows, index],
            tokens=scored.tokens[rows, index],
            energy=scored.energy[rows, index],
            terms={name: term[rows, index] for name, term in scored.terms.items()},
            margins={name: margin[rows, index] for name, margin in scored.margins.items()},
            violation=scored.violation[rows, index],
        )

    @property
    def feasible(self) -> Bool[Tensor, " B"]:
        """Every margin >= 0."""
        return self.violation == 0

    def beaten_by(self, other: Best) -> Bool[Tensor, " B"]:
        """Where ``other`` is strictly better, feasible first."""
        less = other.violation < self.violation
        return less | ((other.violation == self.violation) & (other.energy < self.energy))

    def replaced(self, other: Best, where: Bool[Tensor, " B"]) -> Best:
        """``other`` where the mask is set, this one elsewhere."""

        def pick(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(where.view(-1, *[1] * (new.ndim - 1)), new, old)

        return Best(
            actions=pick(other.actions, self.actions),
            tokens=pick(other.tokens, self.tokens),
            energy=pick(other.energy, self.energy),
            terms={name: pick(other.terms[name], term) for name, term in self.terms.items()},
            margins={name: pick(other.margins[name], margin) for name, margin in self.margins.items()},
            violation=pick(other.violation, self.violation),
        )
