"""`docs/studies/encoders.md`: the encoder study's figures as tables, every one beside the command that makes it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wm.experiments.atomic import write_files
from wm.experiments.goals import purpose
from wm.experiments.report.benchmark_tables import markdown
from wm.experiments.studies.encoders_candidates import BATCH, CONTROLS, RATE_FRAMES, RATE_RUNS, WIDTH, Study
from wm.experiments.studies.encoders_models import BUDGET, FORMS, LOOKS, OFFSET, USUAL, Goals, Plan
from wm.experiments.studies.encoders_numbers import (
    RESAMPLES,
    ROLLOUT_STEPS,
    RULE,
    Condition,
    Figures,
    Success,
    beside,
    collect,
    conditions,
    deciding,
    scores,
)
from wm.experiments.studies.encoders_pictures import logs_png, looks_png, shifts_png

PAGE, LOGS_PNG, SHIFTS_PNG, LOOKS_PNG = "encoders.md", "encoders-logs.png", "encoders-shifts.png", "encoders-looks.png"
NONE = "–"

Cell = Callable[[Figures], str]


def write(study: Study, plan: Plan, goals: Goals, docs: Path) -> Path:
    """Write the page and its pictures from what is there.

    Raises:
        BadInputError: a file of rows that is none, or ``docs`` cannot be written.
        MismatchError: a model is of another encoder than the present one of that name.
    """
    found = collect(study, plan, goals)
    lines = [*_head(study, plan, goals), *_winner(found, plan), *_success(found, study, plan, goals)]
    lines += [*_shifts(found, study, plan, goals), *_features(found, study, plan, goals), *_missing(found, plan, goals)]
    pictures = {LOGS_PNG: logs_png(found), SHIFTS_PNG: shifts_png(found, plan.middle)}
    pictures[LOOKS_PNG] = looks_png(goals.seed, goals.strength)
    page = docs / PAGE
    write_files({docs / name: data for name, data in pictures.items()} | {page: ("\n".join(lines) + "\n").encode()})
    return page


def _command(study: Study, **options: object) -> str:
    """One that makes figures; options that are the same for all of the study's first."""
    shared: dict[str, object] = {"data": study.data, "out": study.out, "pretrain-steps": study.pretrain_steps}
    shared |= {"pretrain-episodes": study.pretrain_episodes, "train-steps": study.train_steps}
    words = [f"--{name} {value}" for name, value in (shared | options).items()]
    words += [f"--frames {path}" for path in study.frames]
    return " ".join(["    python -m wm.experiments.studies.encoders", *words])


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _head(study: Study, plan: Plan, goals: Goals) -> list[str]:
    options: dict[str, object] = {"seeds": _listed(plan.seeds), "episodes": _listed(plan.episodes)}
    options |= {"middle": plan.middle, "form": ",".join(plan.forms)}
    options |= {"evaluate": goals.count, "seed": goals.seed, "strength": goals.strength}
    by = f"the logs in {', '.join(map(str, study.frames))}" if study.frames else "push-T's logs"
    about = (
        "Each of the [laboratory](../laboratory.md)'s objectives (`acjepa-light`: on frames in light of their own) and "
        "three controls: the same network with random weights, raw pixels (averaged down to 32 × 32, cut into 8 × 8 "
        "patches), and a public network trained on ImageNet. On every encoder the same world model is trained, its "
        f"state head in closed form. It plays the same {goals.count} held-out goals ({purpose(goals.seed)} seed "
        f"{goals.seed}), {OFFSET} control steps ahead, in at most {BUDGET}. Encoders of ours: {study.pretrain_steps:,} "
        f"steps of {BATCH} samples, tokens of {WIDTH} numbers, on {by}, {study.pretrain_episodes:,} episodes of each "
        f"store; world models: {study.train_steps:,} steps. Success rates have 95 % intervals: of one training seed "
        "Wilson's; of several, which play the same goals, a bootstrap's that draws goals and seeds anew "
        f"({RESAMPLES:,} times; of few seeds it is rough), but where all or none were reached Wilson's of as many "
        "trials as there are goals. Made of what is there by"
    )
    lines = textwrap.wrap(about, 120, break_long_words=False, break_on_hyphens=False)
    return [
        "# Encoders, compared by what a robot can do with them",
        "",
        *lines,
        "",
        _command(study, **options, stage="report"),
        "",
    ]


def _winner(found: Mapping[str, Figures], plan: Plan) -> list[str]:
    lines, marks = ["## The winner", "", f"The rule: {RULE}", ""], scores(found, plan)
    if not marks:
        return [*lines, "No objective has all of these figures yet.", ""]
    name, *others = marks
    lacking = [each for each in plan.names if each not in CONTROLS]
    lacking = [each for each in lacking if each not in found or not _measured(found[each], plan)]
    before = f", before {_marks(others, marks)}" if others else ""
    lines.append(f"{'So far ' if lacking else ''}**{name}**, {100 * marks[name]:.1f} %{before}.")
    lines += [f"Not in the race yet: {', '.join(lacking)}."] if lacking else []
    rivals = [control for control in CONTROLS if control in found]
    rows = []
    for condition in dict.fromkeys((*deciding(plan), *((FORMS[0], n, USUAL) for n in plan.episodes))):
        ours = found[name].success.get(condition)
        theirs = [found[rival].success.get(condition) for rival in rivals]
        cells = [NONE if ours is None or one is None else f"{beside(ours, one)} {rate(one)}" for one in theirs]
        rows.append([_words(condition), rate(ours), *cells])
    return [*lines, "", *markdown([f"{name} beside the controls", "success", *rivals], rows), ""]


def _marks(names: Sequence[str], marks: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({100 * marks[name]:.1f} %)" for name in names)


def _measured(figures: Figures, plan: Plan) -> bool:
    return {(FORMS[0], max(plan.episodes), USUAL), *deciding(plan)} <= figures.success.keys()


def _words(condition: Condition) -> str:
    form, count, look = condition
    return f"{count:,} logs" + ("" if look == USUAL else f", {look}") + ("" if form == FORMS[0] else f", {form}")


def rate(success: Success | None) -> str:
    """A success rate with its interval, percent."""
    if success is None:
        return NONE
    low, high = success.interval
    return f"{100 * success.rate:.1f} ({100 * low:.0f} … {100 * high:.0f})"


def _table(found: Mapping[str, Figures], columns: Mapping[str, Cell]) -> list[str]:
    rows = [[name, *(cell(each) for cell in columns.values())] for name, each in found.items()]
    return markdown(["encoder", *columns], rows)


def _of(*condition: object) -> Cell:
    form, count, look = str(condition[0]), int(str(condition[1])), str(condition[2])
    return lambda each: rate(each.success.get((form, count, look)))


def _success(found: Mapping[str, Figures], study: Study, plan: Plan, goals: Goals) -> list[str]:
    columns = {f"{n:,} logs": _of(FORMS[0], n, USUAL) for n in plan.episodes}
    columns["seeds"] = lambda each: ", ".join(map(str, sorted(each.seeds))) or NONE
    options: dict[str, object] = {"objectives": "NAME", "seeds": "SEEDS", "episodes": _listed(plan.episodes)}
    options |= {"form": FORMS[0], "evaluate": goals.count, "seed": goals.seed}
    lines = ["## Success against logs [%]", "", "A row:", "", _command(study, **options), ""]
    return [*lines, *_table(found, columns), "", f"![Success against logs]({LOGS_PNG})", ""]


def _shifts(found: Mapping[str, Figures], study: Study, plan: Plan, goals: Goals) -> list[str]:
    columns = {look: _of(FORMS[0], plan.middle, look) for look in LOOKS}
    options = {"objectives": "NAME", "seeds": "SEEDS", "episodes": plan.middle, "middle": plan.middle}
    options |= {"form": FORMS[0], "evaluate": goals.count, "seed": goals.seed, "strength": goals.strength}
    lines = [
        f"## Under shifts that no log shows, {plan.middle:,} logs [%]",
        "",
        "Other colours, a textured table, and a disc that moves and touches nothing, in the goal's picture too; at",
        f"strength {goals.strength:g} of what `wm/envs/pusht/shifts.py` names. Nothing is trained on them. A row:",
        "",
        _command(study, **options),
        "",
    ]
    pictures = [f"![Success under shifts]({SHIFTS_PNG})", "", f"![The shifts]({LOOKS_PNG})", ""]
    return [*lines, *_table(found, columns), "", *pictures]


def _features(found: Mapping[str, Figures], study: Study, plan: Plan, goals: Goals) -> list[str]:
    forms = [form for form in plan.forms if any(form in each.rollout for each in found.values())] or [FORMS[0]]
    columns: dict[str, Cell] = {}
    for form in forms:
        columns[f"{form}: success [%]"] = _of(form, plan.middle, USUAL)
        columns[f"{form}: probe R²"] = lambda each, form=form: _number(each.probe_r2.get(form), "{:.3f}")  # type: ignore[misc]
        columns[f"{form}: rollout"] = lambda each, form=form: _number(each.rollout.get(form), "{:.1%}")  # type: ignore[misc]
    columns["features/s"] = lambda each: _number(each.frames_per_s, "{:,.0f}")
    columns["collapsed"] = lambda each: ", ".join(f"seed {seed}" for seed in each.collapsed) or "no"
    options: dict[str, object] = {"objectives": "NAME", "seeds": "SEEDS", "episodes": plan.middle}
    options |= {"middle": plan.middle, "evaluate": goals.count, "seed": goals.seed}
    return [
        f"## Features, {plan.middle:,} logs",
        "",
        f"Forms of the world model: {_forms(plan)}.",
        "Probe: R² of the true state, mean over its numbers, by a linear map of the model's state on held-out logs.",
        f"Rollout: error after {ROLLOUT_STEPS} latent steps as a share of copying's, on held-out logs. Features/s:",
        f"frames encoded, {RATE_FRAMES} at a time on one thread, median of {RATE_RUNS}; on an otherwise idle machine",
        "only (`--stage rate` measures them again). A row:",
        "",
        _command(study, **options, form=",".join(plan.forms)),
        "",
        *_table(found, columns),
        "",
    ]


def _forms(plan: Plan) -> str:
    means = {
        "compact": "compact has a few numbers from all tokens",
        "pooled": "pooled the same from the mean token alone",
        "patch": "patch a token for every patch",
    }
    return "; ".join(means[form] for form in plan.forms)


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _missing(found: Mapping[str, Figures], plan: Plan, goals: Goals) -> list[str]:
    """What is not measured, or on fewer goals than asked for by one of the seeds."""
    lines, none = [], [name for name in plan.names if name not in found]
    for name, figures in found.items():
        have = figures.success
        words = [_words(one) for one in conditions(plan) if one not in have]
        seeds = sorted({*plan.seeds, *figures.seeds})
        for one, success in have.items():
            played = {seed: len(success.reached.get(seed, ())) for seed in seeds}
            few = [f"{n} of {goals.count} goals of seed {seed}" for seed, n in played.items() if n < goals.count]
            words += [f"{_words(one)}: {', '.join(few)}"] if few else []
        lines += [f"- {name}: {'; '.join(words)}"] if words else []
    lines += [f"- Nothing of {', '.join(none)}."] if none else []
    return ["## Not measured", "", *(lines or ["Nothing is missing."])]
