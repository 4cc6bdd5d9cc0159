"""Candidates: scored, ranked feasible first, and the best of them kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
    """

    actions: Float[Tensor, "B S H A"]
    tokens: Float[Tensor, "B S H N D"]
    energy: Float[Tensor, "B S"]
    terms: dict[str, Tensor]
    margins: dict[str, Tensor]
    violation: Float[Tensor, "B S"]

    def order(self) -> Int[Tensor, "B S"]:
        """Indices, best first: feasible before infeasible; then less violation; then less energy; then the first."""
        order = torch.argsort(self.energy, dim=1, stable=True)
        if not self.margins:
            return order
        violation = self.violation.gather(1, order)
        return order.gather(1, torch.argsort(violation, dim=1, stable=True))


def score(problem: Problem, actions: Float[Tensor, "B S H A"]) -> Scored:
    """Roll the candidates out; energies and margins come from the same trajectory."""
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
