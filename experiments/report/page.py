"""`report.html`: one planned episode on a page that needs nothing else."""

from __future__ import annotations

import base64
from html import escape
from statistics import median

from wm.experiments.report.record import PlanRecord
from wm.experiments.worlds import find_world

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --paper: #fff; --card: #f5f6f8; --rule: #dfe3e8;
  --good: #18794e; --bad: #b42318; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b2; --paper: #14171d; --card: #1e232c;
  --rule: #323a46; --good: #4cc38a; --bad: #ff7b6b; --warn: #e3b341; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .lead { color: var(--soft); margin: 0 0 1.25rem; }
.warning { border-left: 4px solid var(--warn); background: var(--card); padding: .5rem .9rem; margin: .6rem 0; }
img { max-width: 100%; background: #fff; border: 1px solid var(--rule); border-radius: 6px; display: block; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } td.number, th.number { text-align: right; }
code { overflow-wrap: anywhere; }
"""


def report_html(record: PlanRecord, film: bytes, curves: bytes) -> str:
    """The page.

    Args:
        record: The episode.
        film: The GIF.
        curves: The PNG.
    """
    tone = {True: "good", False: "bad", None: ""}[record.reached]
    warnings = "".join(f'<p class="warning">Warning: {escape(text)}</p>' for text in record.warnings)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(headline(record))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1 class="{tone}">{escape(headline(record))}</h1>
<p class="lead">{escape(_lead(record))}</p>
{warnings}
<h2>What happened, and what was imagined</h2>
{_image("real, imagined and goal side by side", "gif", film)}
<p>Left: the camera, with the planned path of the robot and any forbidden area. Right: the goal picture. Between them,
where there is a decoder: what the model imagined at the last replan for the end of the present latent step
({record.model["frameskip"]} control steps). The decoder is only for looking; planning never uses pixels.</p>
<h2>Energies, times, errors and margins</h2>
{_image("curves over the episode", "png", curves)}
<h2>Result</h2>
{_table(_result(record))}
<h2>Replans</h2>
{_replans(record)}
<h2>How it was made</h2>
{_table(_settings(record))}
</body>
</html>
"""


def headline(record: PlanRecord) -> str:
    """The outcome in one line."""
    if record.reached is None:
        return f"{record.env}: {record.steps} control steps executed (whether the goal is reached is unknown)"
    if record.reached:
        return f"{record.env}: goal reached in {record.steps} control steps"
    passed = [flag.comfort for name, flag in find_world(record.env).flags.items() if _measure(record, name)]
    comfort = f" (but {' and '.join(passed)})" if passed else ""
    return f"{record.env}: goal not reached in {record.steps} control steps{comfort}"


def _lead(record: PlanRecord) -> str:
    times = f", {median(record.plan_ms):.0f} ms each (median)" if record.plan_ms else ""
    seen = "the planner saw camera pictures, the robot's own sensors and one goal picture, never the simulator's state"
    return f"{len(record.plan_ms)} plans{times}; {seen}."


def _result(record: PlanRecord) -> list[tuple[str, str]]:
    world, unknown = find_world(record.env), "unknown: no goal state was given"

    def word(passed: float | bool | None) -> str:
        return unknown if passed is None else "yes" if passed else "no"

    rows = [("goal reached", word(record.reached))]
    rows += [(flag.label, word(_measure(record, name))) for name, flag in world.flags.items()]
    for name in world.averaged:
        value = _measure(record, name)
        rows.append((f"{name} at the end", unknown if value is None else f"{value:.3g}"))
    rows += [("control steps", f"{record.steps} of {record.budget_steps}"), ("stopped by", record.stopped_by)]
    if record.executed_margins:
        rows.append(("guardrail violations", str(record.guardrail_violations)))
    rows += [(f"smallest executed margin, {k}", f"{v:.1f}") for k, v in record.executed_margins.items()]
    return rows


def _measure(record: PlanRecord, name: str) -> float | None:
    return None if record.measures is None else record.measures[name]


def _settings(record: PlanRecord) -> list[tuple[str, str]]:
    model, planner, guardrails = record.model, record.planner, record.guardrails
    deadline = "none" if planner["deadline_ms"] is None else f"{planner['deadline_ms']:g} ms"
    unfamiliarity = record.goal["unfamiliarity"]
    distance = "unknown" if unfamiliarity is None else f"{unfamiliarity:.2f} × the 99th percentile of held-out frames"
    rows = [
        ("goal picture", str(record.goal["picture"])),
        ("its SHA-256", str(record.goal["sha256"])),
        ("its distance to the training data", distance),
        ("start", str(record.start["source"])),
        ("model", f"{model['name']} (fingerprint {model['fingerprint']})"),
        (
            "planner",
            f"{planner['name']}, horizon {planner['horizon']} latent steps, replans every {planner['execute']}",
        ),
        ("how much it thinks", planner["think"] or "as suits the world"),
        ("screened by", "none" if planner["screen"] is None else str(planner["screen"]["name"])),
        ("rollouts", str(planner["rollout"])),
        ("deadline per search", deadline),
        ("seed of the search", str(record.seeds["search"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    return rows + [(f"guardrail {name}", str(value)) for name, value in guardrails.items() if value]


def _replans(record: PlanRecord) -> str:
    heads = ["control step", "energy", "iterations", "stopped by", "ms", *(f"margin {name}" for name in _rules(record))]
    body = ""
    rows = zip(record.planned_at, record.energies, record.searches, record.plan_ms, record.margins, strict=True)
    for step, energy, search, ms, margins in rows:
        cells = [str(step), f"{energy['total']:.4f}", str(search["iterations"]), search["stopped_by"], f"{ms:.0f}"]
        cells += [f"{margins[name]:.1f}" for name in _rules(record)]
        body += "<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells) + "</tr>\n"
    head = "".join(f'<th class="number">{escape(text)}</th>' for text in heads)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _rules(record: PlanRecord) -> list[str]:
    return list(record.margins[0]) if record.margins else []


def _table(rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{escape(name)}</th><td><code>{escape(text)}</code></td></tr>\n" for name, text in rows)
    return f'<div class="wide"><table>{body}</table></div>'


def _image(text: str, kind: str, data: bytes) -> str:
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
