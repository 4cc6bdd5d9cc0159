from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.envs.foreign.worlds import EXAMPLES
from wm.envs.foreign.load import load_world
from wm.envs.foreign.world import ForeignWorld, Goal, Proprio
from wm.errors import WmError

PENDULUM = 'id = "Pendulum-v1"\n'
PYTHON = """
from wm.envs.foreign.world import ForeignWorld, Goal

world = ForeignWorld(
    "MountainCarContinuous-v0",
    goal=Goal(("observation[0]",), 0.1),
    get_state=lambda env: env.state,
    set_state=lambda env, state: setattr(env, "state", state),
    is_success=lambda now, goal: bool(now[0] > goal[0]),
)
"""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    return tmp_path / "world.toml"


def refusal(text: object) -> str:
    """The one line that is said."""
    with pytest.raises(WmError) as caught:
        load_world(str(text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_id_alone_is_a_world() -> None:
    assert load_world("Pendulum-v1") == ForeignWorld("Pendulum-v1", name="pendulum", frameskip=5, repeat=1)


def test_every_field_of_a_file_is_read(declared: Path) -> None:
    declared.write_text(
        PENDULUM + 'name = "stick"\nframeskip = 3\nrepeat = 2\ncontrol_hz = 15\nhide = []\n'
        "[kwargs]\ng = 9.81\n[camera]\ndistance = 2.0\n"
        '[proprio]\nkeys = ["observation"]\nnames = ["x", "y", "rate"]\n'
        '[goal]\nof = ["state"]\ntolerance = 1\nangles = [0]\n'
    )
    assert load_world(str(declared)) == ForeignWorld(
        "Pendulum-v1",
        name="stick",
        frameskip=3,
        repeat=2,
        control_hz=15.0,
        kwargs={"g": 9.81},
        camera={"distance": 2.0},
        proprio=Proprio(("observation",), ("x", "y", "rate")),
        goal=Goal(("state",), 1.0, (0,)),
    )


def test_a_python_file_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "world.py"
    path.write_text(PYTHON)
    world = pickle.loads(pickle.dumps(load_world(str(path))))
    assert world.get_state is not None and world.is_success is not None and world.goal == Goal(("observation[0]",), 0.1)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_are_complete(path: Path) -> None:
    module = {"pointmaze": "gymnasium_robotics", "reacher": "shimmy"}[path.stem]
    pytest.importorskip(module)
    world = load_world(str(path))
    assert world.name == path.stem and world.goal is not None and world.proprio.keys and world.control_hz


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Pendulm-v1", "unknown environment 'Pendulm-v1'. Did you mean 'Pendulum-v1'?"),
        ("gymnasium:Pendulm-v1", "Gymnasium has no such id after importing 'gymnasium'"),
        ("no_such_pack:World-v0", "no module 'no_such_pack': is it installed, and its name right?"),
        ("nowhere.toml", "nowhere.toml: no such declaration."),
        ("nowhere.py", "nowhere.py: no such declaration."),
    ],
)
def test_what_is_not_there_is_named(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PENDULUM + "frameskip = = 2\n", "not a TOML file: .*line 2"),
        ("name = 'stick'\n", "id: expected text, came nothing"),
        (PENDULUM + "frameskp = 2\n", "unknown field .* 'frameskp'. Did you mean 'frameskip'?"),
        (
            PENDULUM + "[goal]\nof = ['state']\ntolerence = 1\n",
            "unknown field of a declaration 'goal.tolerence'. Did you mean 'goal.tolerance'",
        ),
        (PENDULUM + "[goal]\nof = ['state']\ntolerance = 1\nangle = [0]\n", "Did you mean 'goal.angles'?"),
        (PENDULUM + "frameskip = 2.5\n", "frameskip: expected a whole number, came 2.5"),
        (PENDULUM + "frameskip = true\n", "frameskip: expected a whole number, came True"),
        (PENDULUM + "frameskip = 0\n", "frameskip: expected a whole number >= 1, came 0"),
        (PENDULUM + "repeat = -1\n", "repeat: expected a whole number >= 1, came -1"),
        (PENDULUM + "control_hz = 0.0\n", "control_hz: expected a number > 0, came 0.0"),
        (PENDULUM + "control_hz = nan\n", "control_hz: expected a number > 0, came nan"),
        (PENDULUM + "hide = 'target'\n", "hide: expected a list of texts, came 'target'"),
        (PENDULUM + "proprio = ['x']\n", "proprio: expected a table"),
        (PENDULUM + "name = 'Big Name'\n", "name: expected small letters"),
        (PENDULUM + "name = 'pusht'\n", "name: 'pusht' is a world of ours"),
        (PENDULUM + "[goal]\nof = ['state']\ntolerance = 0\n", "goal.tolerance: expected a number > 0, came 0.0"),
        (PENDULUM + "[goal]\nof = ['state']\ntolerance = -0.1\n", "goal.tolerance: expected a number > 0, came -0.1"),
        (PENDULUM + "[goal]\nof = []\ntolerance = 1\n", "goal.of: expected at least one"),
        (PENDULUM + "goal = 3\n", "goal: expected a table, came 3"),
        (PENDULUM + "[proprio]\nkeys = 'observation'\n", "proprio.keys: expected a list of texts, came 'observation'"),
        (PENDULUM + "is_success = 'near'\n", "unknown field of a declaration 'is_success'"),
        (PENDULUM + "[kwargs]\nrender_mode = 'human'\n", "kwargs.render_mode: it is set here"),
        (PENDULUM + "[kwargs]\nmax_episode_steps = 5\n", "kwargs.max_episode_steps: it is set here"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_path(declared: Path, content: str, said: str) -> None:
    declared.write_text(content)
    message = refusal(declared)
    assert message.startswith(str(declared)) and re.search(said, message), message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("world = 3\n", "expected 'world = ForeignWorld(...)', came int"),
        ("x = 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def\n", "SyntaxError"),
        (PYTHON.replace('    set_state=lambda env, state: setattr(env, "state", state),\n', ""), "expected both"),
    ],
)
def test_a_wrong_python_file_is_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "world.py"
    path.write_text(content)
    message = refusal(path)
    assert message.startswith(str(path)) and said in message


WRONG = {
    "ForeignWorld('X-v0', repeat=1.5)": "repeat: expected a whole number, came 1.5.",
    "ForeignWorld('X-v0', frameskip=True)": "frameskip: expected a whole number, came True.",
    "ForeignWorld('X-v0', control_hz='fast')": "control_hz: expected a number, came 'fast'.",
    "ForeignWorld(3)": "id: expected text, came 3.",
    "ForeignWorld('X-v0', hide='target')": "hide: expected a list of texts, came 'target'.",
    "ForeignWorld('X-v0', kwargs=None)": "kwargs: expected a table, came None.",
    "ForeignWorld('X-v0', goal=('state', 0.5))": "goal: expected Goal(...), came ('state', 0.5).",
    "ForeignWorld('X-v0', proprio=None)": "proprio: expected Proprio(...), came None.",
    "ForeignWorld('X-v0', get_state=3, set_state=print)": "get_state: expected a function, came 3.",
    "Goal('observation', 0.5)": "goal.of: expected a list of texts, came 'observation'.",
    "Goal(('observation',), '0.5')": "goal.tolerance: expected a number, came '0.5'.",
    "Goal(('observation',), 0.5, angles=0)": "goal.angles: expected a list of whole numbers, came 0.",
    "Goal(('observation',), 0.5, angles=(0.5,))": "goal.angles: expected a list of whole numbers, came (0.5,).",
    "Proprio('observation')": "proprio.keys: expected a list of texts, came 'observation'.",
    "Proprio(('observation',), names='x')": "proprio.names: expected a list of texts, came 'x'.",
    "Proprio((numpy.zeros((2, 1)),))": "proprio.keys: expected a list of texts, came (array([[0.], [0.]]),).",
}
"""Declarations in Python, and what is said of them."""


def test_the_types_of_a_declaration_in_python_are_checked() -> None:
    """In a process of its own: in this one every call is checked anyhow, and by others."""
    code = (
        "import json, sys, numpy\nfrom wm.envs.foreign.world import ForeignWorld, Goal, Proprio\n"
        "from wm.errors import BadInputError\nsaid = []\n"
        "for each in json.load(sys.stdin):\n"
        "    try:\n        said.append(repr(eval(each)))\n"
        "    except BadInputError as error:\n        said.append(str(error))\n"
        "print(json.dumps(said))"
    )
    right = {
        "Goal(['x'], 1, [numpy.int64(0)])": "Goal(of=('x',), tolerance=1.0, angles=(0,))",
        "type(ForeignWorld('X-v0', control_hz=numpy.float32(2)).control_hz)": "<class 'float'>",
    }
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, input=json.dumps([*WRONG, *right]), capture_output=True, text=True, timeout=100)
    assert json.loads(done.stdout or "null") == [*WRONG.values(), *right.values()], done.stderr
