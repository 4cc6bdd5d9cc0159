from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from wm.experiments.episode import Outcome
from wm.experiments.report.curves import energy_png
from wm.experiments.report.film import LAST_MS, PANEL, Marks, Moment, compose, gif
from wm.experiments.report.imagination import imagined_at, imagined_tokens
from wm.experiments.report.page import headline, report_html
from wm.experiments.report.record import PlanRecord, strict
from wm.experiments.rules import Rules
from wm.types import Plan

PLANNER = {
    "name": "icem",
    "think": "auto",
    "screen": None,
    "rollout": "int8",
    "horizon": 5,
    "execute": 1,
    "deadline_ms": None,
}


def record(**changes: object) -> PlanRecord:
    base = PlanRecord(
        env="pusht",
        reached=True,
        measures={"block_reached": 1.0},
        steps=7,
        budget_steps=50,
        stopped_by="reached",
        planned_at=[0, 5],
        plan_ms=[100.0, 50.0],
        energies=[{"total": 2.0, "terms": {"goal": 1.5, "effort": 0.5}}, {"total": 1.0, "terms": {"goal": 1.0}}],
        searches=[{"iterations": 2, "milliseconds": 90.0, "stopped_by": "converged", "trace": [3.0, 2.0]}] * 2,
        margins=[{"keep_out": 4.0}, {"keep_out": 8.0}],
        executed_margins={"keep_out": 3.0},
        guardrail_violations=0,
        guardrails={"keep_out": [[1.0, 2.0, 3.0]], "workspace": None, "max_speed": None},
        prediction_errors=[{"step": 5, "error": 0.1, "copy_last": 0.4}],
        goal={"picture": "goal.png", "sha256": "ab" * 32, "unfamiliarity": 0.5},
        start={"source": "goal.json"},
        seeds={"search": 3, "start": None},
        model={"name": "pusht", "fingerprint": "12", "encoder_fingerprint": "34", "frameskip": 5, "history": 2},
        planner=PLANNER,
        versions={"wm": "0.1.0"},
        warnings=[],
        state_names=["x"],
        states=[[0.0]] * 8,
        goal_state=None,
        action_names=["dx"],
        actions=[[0.0]] * 7,
    )
    energies = [
        {"total": 2.0, "terms": {"goal": 1.5, "effort": 0.5}},
        {"total": 1.0, "terms": {"goal": 1, "effort": 0}},
    ]
    return dataclasses.replace(base, **({"energies": energies} | changes))


def moments(count: int, imagined: bool, size: int = 96) -> list[Moment]:
    red, blue = np.full((size, size, 3), (255, 0, 0), np.uint8), np.full((size, size, 3), (0, 0, 255), np.uint8)
    return [Moment(red, blue if imagined else None, f"control step {i}") for i in range(count)]


GOAL = np.full((96, 96, 3), (0, 255, 0), np.uint8)
BARE = Marks(512.0)


@pytest.mark.parametrize("frameskip", [1, 3, 5])
def test_imagined_belongs_to_the_last_plan_made_before(frameskip: int) -> None:
    planned_at = [0, frameskip, 2 * frameskip]
    for step in range(3 * frameskip + 1):
        at = imagined_at(planned_at, step, frameskip)
        assert at.made_at < step or step == 0
        assert step <= at.shows <= step + frameskip
        assert at.latent_step == 0
    for plan, made in enumerate(planned_at):
        at = imagined_at(planned_at, made + frameskip, frameskip)
        assert (at.plan, at.shows) == (plan, made + frameskip)


def test_later_latent_steps_of_a_plan_that_is_executed_for_long() -> None:
    assert [imagined_at([0, 10], step, 5).latent_step for step in (0, 1, 5, 6, 10, 11, 15)] == [0, 0, 0, 1, 1, 0, 0]


def test_imagined_tokens_are_the_plans() -> None:
    tokens = torch.arange(2 * 3.0).reshape(2, 1, 3, 1, 1)
    plans = [
        Plan(torch.zeros(1, 3, 4), each, torch.zeros(1), {}, {}, torch.ones(1, dtype=torch.bool)) for each in tokens
    ]
    outcome = Outcome(steps=4, plans=plans, planned_at=[0, 2])
    assert imagined_tokens(outcome, 2).flatten().tolist() == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("imagined", [True, False])
def test_panels_stand_side_by_side(imagined: bool) -> None:
    picture = compose(moments(2, imagined), GOAL, BARE, "done", True)[0]
    row = np.asarray(picture)[34 + PANEL // 2].astype(int)
    colours = [c for i, c in enumerate(map(tuple, row.tolist())) if i == 0 or c != tuple(row[i - 1])]
    wanted = [(255, 0, 0), (0, 0, 255), (0, 255, 0)] if imagined else [(255, 0, 0), (0, 255, 0)]
    assert [c for c in colours if c in wanted] == wanted
    assert ((row == (255, 0, 0)).all(-1)).sum() == PANEL


def test_text_stays_on_the_page_and_apart() -> None:
    """The longest captions end before the next panel, the foot before the edge."""
    long = [dataclasses.replace(m, caption="control step 999", imagined_caption="step 999, as foreseen at step 994")
            for m in moments(2, True)]  # fmt: skip
    verdict = "goal not reached in 999 control steps (but the block was at its place)"
    page = np.asarray(compose(long, GOAL, BARE, verdict, False)[-1].convert("L"))
    captions = page[34 + PANEL + 2 : 34 + PANEL + 26]
    for gap in (14 + PANEL + 7, 14 + 2 * (PANEL + 14) - 7):
        assert (captions[:, gap : gap + 2] == 255).all()
    assert (page[:, -3:] == 255).all()


def test_forbidden_places_workspace_and_path_are_drawn_where_they_are() -> None:
    white = np.full((96, 96, 3), 255, np.uint8)
    path = np.array([[100.0, 400.0], [300.0, 400.0]], np.float32)
    rules = Rules(
        keep_out=((128.0, 256.0, 64.0),),
        keep_out_boxes=((20.0, 20.0, 100.0, 80.0),),
        keep_out_polygons=(((300.0, 300.0), (400.0, 300.0), (300.0, 380.0)),),
        workspace=(300.0, 50.0, 500.0, 200.0),
    )
    marks = Marks(512.0, rules)
    page = np.asarray(compose([Moment(white, None, "", path=path)], white, marks, "", None)[0]).astype(int)
    panel = page[34 : 34 + PANEL, 14 : 14 + PANEL]

    def at(x: float, y: float) -> np.ndarray:
        return panel[int(y / 512 * PANEL), int(x / 512 * PANEL)]

    assert at(128, 256)[1] < 250  # inside the disc
    assert at(128, 256 - 64)[1] < 120  # on its rim
    assert (at(128, 256 - 80) == 255).all()
    assert at(60, 50)[1] < 250 and (at(60, 100) == 255).all()  # in the forbidden box, and below it
    assert at(320, 320)[1] < 250 and (at(390, 370) == 255).all()  # in the triangle, and beyond its long side
    assert at(302, 120)[1] < 120  # the workspace's left side
    assert (at(400, 120) == 255).all()
    assert at(200, 400)[2] < 120  # the path
    assert (at(200, 430) == 255).all()


def test_gif_plays_every_picture_and_holds_the_last() -> None:
    pictures = compose(moments(5, True), GOAL, BARE, "goal reached", True)
    with Image.open(io.BytesIO(gif(pictures))) as film:
        assert film.n_frames == 5
        assert film.info["loop"] == 0
        film.seek(4)
        assert film.info["duration"] == LAST_MS
        shown = np.asarray(film.convert("RGB")).astype(int)
    np.testing.assert_allclose(shown, np.asarray(pictures[-1]).astype(int), atol=40)
    assert np.abs(shown - np.asarray(pictures[-1])).mean() < 2
    assert (shown[0, 0] == 255).all()


@pytest.mark.parametrize("deadline", [None, 120])
@pytest.mark.parametrize("margins", [{}, {"keep_out": [3.0] * 8}, {"a": [1.0] * 8, "b": [-1.0] * 8, "c": [0.0] * 8}])
def test_curves_are_drawn(margins: dict[str, list[float]], deadline: int | None) -> None:
    planner = PLANNER | {"deadline_ms": deadline}
    shown = record(margins=[dict.fromkeys(margins, 1.0)] * 2, planner=planner)
    with Image.open(io.BytesIO(energy_png(shown, margins, dict.fromkeys(margins, "px")))) as picture:
        assert picture.format == "PNG"
        assert picture.height == round(110 * 3.5) * (2 + (len(margins) + 1) // 2)


def test_curves_of_an_episode_that_ended_at_once() -> None:
    assert energy_png(record(prediction_errors=[]), {}, {}).startswith(b"\x89PNG")


class Page(HTMLParser):
    """Tags must close in order; collects text and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def test_page_needs_nothing_else() -> None:
    html = report_html(record(), b"GIF89a", b"PNG")
    page = parsed(html)
    assert len(page.links) == 2
    assert all(re.match(r"data:image/(gif|png);base64,[A-Za-z0-9+/=]+$", link) for link in page.links)
    assert "http" not in html
    assert "prefers-color-scheme: dark" in html
    assert "pusht: goal reached in 7 control steps" in page.text
    assert "75 ms each (median)" in page.text


def test_page_escapes_what_users_wrote() -> None:
    nasty = '<script>alert("x")</script>&'
    shown = record(
        goal={"picture": nasty, "sha256": "", "unfamiliarity": None},
        start={"source": nasty},
        warnings=[nasty],
        model={"name": nasty, "fingerprint": "", "frameskip": 5},
    )
    html = report_html(shown, b"", b"")
    assert "<script" not in html
    assert parsed(html).text.count(nasty) == 4


def test_headlines() -> None:
    assert headline(record()) == "pusht: goal reached in 7 control steps"
    assert (
        headline(record(reached=False, measures={"block_reached": 0.0})) == "pusht: goal not reached in 7 control steps"
    )
    assert headline(record(reached=False)).endswith("(but the block was at its place)")
    assert "unknown" in headline(record(reached=None, measures=None))


def test_json_is_strict_and_keeps_its_order() -> None:
    shown = record(executed_margins={"keep_out": math.nan}, plan_ms=[math.inf, 1.0])
    found = json.loads(shown.to_json())
    assert list(found) == [field.name for field in dataclasses.fields(PlanRecord)]
    assert found["executed_margins"] == {"keep_out": None}
    assert found["plan_ms"] == [None, 1.0]
    assert strict({"a": (1, float("-inf"), "nan", True)}) == {"a": [1, None, "nan", True]}
