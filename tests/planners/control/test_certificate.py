from __future__ import annotations

import dataclasses

import numpy as np

from wm.experiments.studies.point_robot import PUSHER, PUSHER_ACTION
from wm.planners.control.certificate import Base, Certificate
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.guardrails import JerkLimit


def certificate_of(latency: float, action: tuple[float, float]) -> Certificate:
    shield = Shield(PUSHER, PUSHER_ACTION, [JerkLimit(2e6, PUSHER)], ShieldLimits(latency, position_error=1.0))
    assert shield.certify(np.array([256.0, 256.0, 0.0, 0.0]), np.array(action)).kind == "passed"
    assert shield._certificate is not None
    shield._certificate.age = 1
    return shield._certificate


def holds(disc: Base, place: np.ndarray, error: float) -> bool:
    """The disc holds every place within ``error`` of ``place``."""
    return bool(np.linalg.norm(disc[0] - place) + error <= disc[1] + 1e-9)


def test_base_of_the_next_reading_is_the_reading_before() -> None:
    certificate = certificate_of(0.0, (0.4, 0.0))
    reading = np.concatenate([certificate.places[10], certificate.velocities[10]])
    rows, far = certificate.differences(reading, (1.0, 0.0))
    centre, error = certificate.base(rows[far <= 0])
    assert np.allclose(centre, [256, 256], atol=1e-9) and abs(error - 1.0) < 1e-3


def test_base_holds_every_place_that_the_latency_allows() -> None:
    certificate = dataclasses.replace(certificate_of(0.1, (0.4, 0.0)), start=(np.array([230.0, 256.0]), 1.5))
    rows, _ = certificate.differences(np.zeros(4), (1.0, 0.0))
    assert rows.tolist() == [row for step in (0, 1, 2) for row in certificate.response.ends[step]]
    disc = certificate.base(rows)
    assert holds(disc, np.array([230.0, 256.0]), 1.5)  # before row 0, the instant of the reading before
    for row in certificate.response.ends[1]:
        assert holds(disc, certificate.places[row], certificate.place_slack[row])
    assert not holds(certificate.base(rows[rows > 0]), np.array([230.0, 256.0]), 1.5)


def test_base_of_a_robot_that_rests_is_where_it_is() -> None:
    certificate = certificate_of(0.0, (0.4, 0.0))
    certificate.age = 50
    leaf = certificate.response.ends[-1][0]
    rows, far = certificate.differences(np.array([*certificate.places[leaf], 0.0, 0.0]), (1.0, 0.1))
    assert rows.tolist() == [leaf] and far[0] <= 0
    assert holds(certificate.base(rows), certificate.places[leaf], certificate.place_slack[leaf])
