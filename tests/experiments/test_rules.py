from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wm.errors import BadInputError, UnknownNameError, WmError
from wm.experiments.options import rules_of
from wm.experiments.rules import ARENA, PUSHER, RobotShape, Rules, on_states, read_rules
from wm.kinematics import PointKinematics

EVERY_KIND = """
keep_out = [[100, 110, 20], [300, 310.5, 5]]
keep_out_boxes = [[10, 20, 30, 40]]
keep_out_polygons = [[[400, 400], [500, 400], [450, 500]]]
workspace = [5, 6, 500, 501]
max_speed = 300
max_acceleration = 5000.5
max_jerk = 1e6

[bounds]
position_error = 1
velocity_error = 2
disturbance = 3
velocity_disturbance = 4.5
"""
ROBOT = PointKinematics(kp=100.0, kv=20.0, dt=0.01, substeps=10, scale=100.0, relative=True)


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_gives_every_kind_of_rule(tmp_path: Path) -> None:
    file = read_rules(written(tmp_path, EVERY_KIND))
    made = {rule.name: rule for rule in file.rules.guardrails(ROBOT)}
    kinds = ("keep_out", "keep_out_boxes", "keep_out_polygons", "workspace", "speed", "acceleration", "jerk")
    assert tuple(made) == kinds
    assert [rule.name for rule in on_states(list(made.values()))] == list(kinds[:5])
    assert file.bounds == {
        "position_error": 1, "velocity_error": 2, "disturbance": 3, "velocity_disturbance": 4.5,
    }  # fmt: skip
    assert json.loads(json.dumps(file.rules.as_json()))["keep_out"] == [[100, 110, 20], [300, 310.5, 5]]


@pytest.mark.parametrize(
    ("rules", "place", "margin"),
    [
        (Rules(((100.0, 100.0, 20.0),)), (150.0, 100.0), 15.0),
        (Rules(keep_out_boxes=((200.0, 0.0, 300.0, 50.0),)), (150.0, 25.0), 35.0),
        (Rules(keep_out_polygons=(((200.0, 0.0), (300.0, 0.0), (300.0, 60.0), (200.0, 60.0)),)), (150.0, 25.0), 35.0),
        (Rules(), (20.0, 256.0), 5.0),
        (Rules(workspace=(10.0, 0.0, 512.0, 512.0)), (40.0, 256.0), 15.0),
    ],
)
def test_rules_are_for_the_whole_disc_of_the_pusher(rules: Rules, place: tuple[float, float], margin: float) -> None:
    state = torch.tensor([*place, 0.0, 0.0])
    assert float(on_states(rules.guardrails())[0].margin_of(state)) == pytest.approx(margin)


def test_a_robot_brings_its_disc_its_unit_and_its_arena() -> None:
    shape = RobotShape(0.015, "m", (0.2, -0.3, 0.7, 0.3), pictured=1.0, walled=True)
    rules = Rules(((0.5, 0.0, 0.05),), max_speed=0.2, max_acceleration=3.0, max_jerk=500.0)
    assert rules.within(shape).workspace == shape.arena and rules.within(PUSHER) == rules
    made = {rule.name: rule for rule in rules.guardrails(ROBOT, shape)}
    units = {"keep_out": "m", "workspace": "m", "speed": "m/s", "acceleration": "m/s^2", "jerk": "m/s^3"}
    assert {name: rule.unit for name, rule in made.items()} == units
    state = torch.tensor([0.3, 0.0, 0.0, 0.0])
    margins = {rule.name: float(rule.margin_of(state)) for rule in on_states(list(made.values()))}
    assert margins == pytest.approx({"keep_out": 0.135, "workspace": 0.085, "speed": 0.2}, abs=1e-6)


def test_a_workspace_ends_at_the_walls_that_cut_a_robot_s_motion_off() -> None:
    shape = RobotShape(0.015, "m", (0.2, -0.3, 0.7, 0.3), pictured=1.0, walled=True)
    assert Rules(workspace=(0.2, -0.1, 0.5, 0.3)).within(shape).workspace == (0.2, -0.1, 0.5, 0.3)
    told = r"workspace: expected inside of \[0\.2, -0\.3, 0\.7, 0\.3\] m, .* came \[0\.1, -0\.1, 0\.5, 0\.3\]"
    with pytest.raises(BadInputError, match=told):
        Rules(workspace=(0.1, -0.1, 0.5, 0.3)).guardrails(ROBOT, shape)
    assert Rules(workspace=(-9.0, 0.0, 600.0, 600.0)).within(PUSHER).workspace == (-9.0, 0.0, 600.0, 600.0)


def test_options_join_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "keep_out = [[100, 100, 10]]\nmax_speed = 200\n")
    rules = rules_of(path, ["50,60,7"], "1,2,400,401", None).rules
    assert rules.keep_out == ((100, 100, 10), (50, 60, 7))
    assert rules.workspace == (1, 2, 400, 401) and rules.max_speed == 200
    assert rules_of(None, None, None, None).rules == Rules() and Rules().workspace == ARENA


@pytest.mark.parametrize(
    ("option", "text"), [("workspace", "workspace = [5, 6, 500, 501]"), ("max-speed", "max_speed = 9")]
)
def test_what_there_is_one_of_is_not_given_twice(tmp_path: Path, option: str, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadInputError, match=f"--{option}: the rules file gives one too"):
        rules_of(path, None, "0,0,400,400" if option == "workspace" else None, 7.0 if option == "max-speed" else None)


@pytest.mark.parametrize("limit", ["max_acceleration", "max_jerk"])
def test_a_limit_that_needs_kinematics_is_not_left_out(limit: str) -> None:
    with pytest.raises(BadInputError, match="needs a robot with declared kinematics"):
        Rules(**{limit: 5.0}).guardrails()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep_out = [[1, 2]]", r"keep_out: expected a list of \[x, y, radius\], came \[\[1, 2\]\]"),
        ("keep_out = [1, 2, 3]", r"keep_out: expected a list of \[x, y, radius\]"),
        ("keep_out_boxes = [[1, 2, 3, nan]]", "keep_out_boxes: expected a list of"),
        ("workspace = [1, 2, 3]", r"workspace: expected \[x low, y low, x high, y high\], came \[1, 2, 3\]"),
        ("max_speed = -1", "max_speed: expected a number >= 0, came -1"),
        ("max_speed = 1" + "0" * 400, "max_speed: expected a number >= 0, came 1000"),
        ("keep_out = [[1, 2, " + "9" * 330 + "]]", r"keep_out: expected a list of \[x, y, radius\], came"),
        ("max_speed = 1" + "0" * 5000, "rules file '.*rules.toml': Exceeds the limit"),
        ("max_speed = true", "max_speed: expected a number >= 0, came True"),
        ("max_jerk = '7'", "max_jerk: expected a number >= 0, came '7'"),
        ("bounds = 3", r"expected a table \[bounds\], came 3"),
        ("[bounds]\nposition_error = inf", "position_error: expected a number >= 0, came inf"),
        ("keep_out = [", "rules file '.*rules.toml': .*"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_rules(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keepout = []", r"unknown key in the rules file '.*rules.toml' 'keepout'\. Did you mean 'keep_out'\?"),
        ("[bounds]\nlatency = 1", r"unknown key .* 'latency'\..* Known: disturbance, position_error"),
    ],
)
def test_an_unknown_key_is_refused_and_never_ignored(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        read_rules(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")
    for each in (path, tmp_path, tmp_path / "none.toml"):
        with pytest.raises(WmError, match="rules file"):
            read_rules(each)


def test_a_disc_that_is_out_of_reach_guards_nothing_and_is_refused() -> None:
    pixels = Rules(keep_out=((120.0, 400.0, 40.0),))  # push-T's unit
    assert pixels.guardrails()[0].name == "keep_out"
    arm = RobotShape(0.015, "m", arena=(0.2, -0.27, 0.68, 0.27), pictured=1.15, digits=4)
    with pytest.raises(BadInputError, match=r"keep-out: expected a disc in or near .* m, came \[120.0, 400.0"):
        pixels.guardrails(None, arm)
    assert len(Rules(keep_out=((0.8, 0.0, 0.05),)).guardrails(None, arm)) == 2  # near
