from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from wm.encoders.tiny import TinyEncoder
from wm.objectives import OBJECTIVES
from wm.objectives.base import Pictures
from wm.objectives.dino import Dino
from wm.objectives.masked import Masked
from wm.objectives.teacher import follow, momentum_at, teacher_of

NOTHING = Pictures(np.zeros((1, 24, 24, 3), np.uint8), np.zeros(1, np.int64))


def test_a_teacher_moves_by_its_moving_average_exactly(square_encoder: Callable[[], TinyEncoder]) -> None:
    student = square_encoder()
    teacher = teacher_of(student)
    assert not any(p.requires_grad for p in teacher.parameters()) and all(p.requires_grad for p in student.parameters())
    before = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student.stem[1].running_mean.fill_(7.0)
    follow(teacher, student, 0.9)
    for t, old, s in zip(teacher.parameters(), before.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(t, 0.9 * old + 0.1 * s)
    assert not (teacher.stem[1].running_mean == 7.0).any()
    follow(teacher, student, 1.0)
    follow(before, student, 0.0)
    for t, s in zip(before.parameters(), student.parameters(), strict=True):
        assert torch.equal(t, s)


def test_momentum_rises_from_its_start_to_one() -> None:
    values = [momentum_at(share / 10, 0.9) for share in range(11)]
    assert values[0] == pytest.approx(0.9) and values[5] == pytest.approx(0.95) and values[-1] == 1.0
    assert values == sorted(values)


@pytest.mark.parametrize(("name", "momentum"), [("dino", 0.98), ("ijepa", 0.99), ("vjepa", 0.99)])
def test_the_teacher_is_in_the_checkpoint_and_is_kept(
    name: str, momentum: float, square_encoder: Callable[[], TinyEncoder]
) -> None:
    encoder = square_encoder()
    objective = OBJECTIVES[name]().build(encoder, NOTHING)
    assert isinstance(objective, (Dino, Masked)) and objective.kept is objective.teacher is not encoder
    assert any(key.startswith("teacher.stem") for key in objective.state_dict())
    with torch.no_grad():
        encoder.project.weight.add_(1.0)
    old = objective.kept.project.weight.clone()
    objective.after_step(0.0)
    expected = momentum * old + (1 - momentum) * encoder.project.weight
    torch.testing.assert_close(objective.kept.project.weight, expected)


def test_without_a_teacher_the_student_is_kept(square_encoder: Callable[[], TinyEncoder]) -> None:
    encoder = square_encoder()
    objective = OBJECTIVES["ijepa"]().unregulated().build(encoder, NOTHING)
    assert objective.kept is encoder and not any(key.startswith("teacher") for key in objective.state_dict())
