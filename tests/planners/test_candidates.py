from __future__ import annotations

import torch

from wm.planners.candidates import Best, Scored

INF, NAN = float("inf"), float("nan")


def scored(energy: list[float], violation: list[float]) -> Scored:
    count = len(energy)
    actions = torch.arange(count, dtype=torch.float32).view(1, count, 1, 1)
    return Scored(
        actions=actions,
        tokens=actions[:, :, :, None],
        energy=torch.tensor([energy]),
        terms={"term": torch.tensor([energy])},
        margins={"rule": -torch.tensor([violation])[:, :, None]},
        violation=torch.tensor([violation]),
    )


def test_order_is_feasible_first_then_violation_then_energy_then_place() -> None:
    candidates = scored([0.0, 5.0, 1.0, 3.0, 3.0, INF, -9.0], [2.0, 0.0, 2.0, 0.0, 0.0, 0.0, INF])
    assert candidates.order().tolist() == [[3, 4, 1, 5, 0, 2, 6]]


def test_best_is_replaced_only_by_what_is_strictly_better() -> None:
    candidates = scored([3.0, 3.0, 2.0, 1.0, INF], [0.0, 0.0, 0.0, 1.0, 0.0])
    best = [Best.of(candidates, torch.tensor([k])) for k in range(5)]
    assert not best[0].beaten_by(best[1]).any()
    assert best[0].beaten_by(best[2]).all()
    assert not best[0].beaten_by(best[3]).any()
    assert best[3].beaten_by(best[4]).all()  # feasible with an unknown energy beats infeasible
    assert best[2].feasible.all() and not best[3].feasible.any()


def test_replacing_takes_every_field_of_the_chosen_rows() -> None:
    candidates = scored([1.0, 2.0], [0.0, 1.0])
    two = Scored(
        *(torch.cat([x, x + 10]) for x in (candidates.actions, candidates.tokens, candidates.energy)),
        {"term": candidates.terms["term"].repeat(2, 1)},
        {"rule": candidates.margins["rule"].repeat(2, 1, 1)},
        candidates.violation.repeat(2, 1),
    )
    first, second = Best.of(two, torch.tensor([0, 0])), Best.of(two, torch.tensor([1, 1]))
    mixed = first.replaced(second, torch.tensor([False, True]))
    assert mixed.energy.tolist() == [1.0, 12.0]
    assert mixed.actions.flatten().tolist() == [0.0, 11.0]
    assert mixed.tokens.flatten().tolist() == [0.0, 11.0]
    assert mixed.margins["rule"].flatten().tolist() == [0.0, -1.0]
    assert mixed.terms["term"].tolist() == [1.0, 2.0]
    assert mixed.feasible.tolist() == [True, False]
