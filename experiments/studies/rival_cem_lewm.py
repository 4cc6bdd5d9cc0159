"""Same weights, same noise, same candidates: a plan of LeWM's size by stable-worldmodel's CEM and by ours.

    python -m wm.experiments.studies.rival_cem_lewm --out studies/rival_cem_lewm.json

The rival embeds all actions so far and computes the whole window of three frames in each step, and encodes picture and
goal again in each iteration. Ours encodes once, and rolls out as `wm.frame_causal` says. Both score the candidates that
the rival draws; their costs have to agree to rounding. With ``--rival DIR`` and ``--rival-model DIR`` the rival is the
own code of stable-worldmodel's solver (github.com/galilai-group/stable-worldmodel, as laid out since July 2026) on that
of LeWM's model (a copy of lucas-maes/le-wm), otherwise `rival_reference.LeWM`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from wm.errors import BadInputError
from wm.experiments.atomic import require_writable, write_json
from wm.experiments.studies import rival_flops
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import machine
from wm.experiments.studies.rival_code import LeWMCode
from wm.experiments.studies.rival_import import revision
from wm.experiments.studies.rival_reference import LeWM, PictureEncoder
from wm.experiments.studies.rival_search import Scene, Scored, Search, elite_mean, race, settings
from wm.experiments.studies.rival_weights import LEWM, Sizes, State, lewm_state
from wm.foreign_weights import from_lewm
from wm.token_predictor import TokenPredictor


class Theirs:
    """stable-worldmodel's CEM, done as it does it: one problem after the other, each through all of its iterations."""

    def __init__(self, state: State, sizes: Sizes, encoder: PictureEncoder, search: Search) -> None:
        self.model, self.sizes, self.search = LeWM(state, sizes, encoder), sizes, search

    @torch.inference_mode()
    def plan(self, scene: Scene) -> Scored:
        """One search."""
        search, generator = self.search, torch.Generator().manual_seed(self.search.seed)
        found = list[tuple[Tensor, Tensor, Tensor]]()
        for problem in range(search.problems):
            here = slice(problem, problem + 1)
            mean = torch.zeros(1, search.horizon, self.sizes.action_width)
            deviation, candidates, costs = torch.ones_like(mean), list[Tensor](), list[Tensor]()
            for _ in range(search.iterations):
                noise = torch.randn(1, search.samples, *mean.shape[1:], generator=generator)
                actions = noise * deviation[:, None] + mean[:, None]
                actions[:, 0] = mean
                cost = self.model.cost(scene.picture[here], scene.goal_picture[here], actions)
                best = cost.topk(search.topk, dim=1, largest=False)
                elites = actions[torch.zeros_like(best.indices), best.indices]
                mean, deviation = elites.mean(1), elites.std(1)
                best.values.mean(1).tolist()  # a number read back in each iteration
                candidates.append(actions)
                costs.append(cost)
            found.append((torch.stack(candidates), torch.stack(costs), mean))
        drawn, scores, plans = zip(*found, strict=True)
        return Scored(torch.cat(drawn, dim=1), torch.cat(scores, dim=1), torch.cat(plans))


class Ours:
    """The same search by our code: encoded once, problems in one batch, `wm.frame_causal`'s rollout."""

    def __init__(self, state: State, sizes: Sizes, encoder: PictureEncoder, search: Search, chunk: int) -> None:
        self.search, self.model = search, LeWM(state, sizes, encoder)
        self.predictor = TokenPredictor(
            width=sizes.width,
            action_width=sizes.action_width,
            action_hidden=4 * sizes.width,
            window=sizes.window,
            depth=sizes.depth,
            heads=sizes.heads,
            head_width=sizes.head_width,
            hidden=sizes.hidden,
            out_hidden=sizes.hidden,
            chunk=chunk,
        ).requires_grad_(False)
        from_lewm(self.predictor, state)

    @torch.inference_mode()
    def plan(self, scene: Scene, candidates: Tensor) -> Scored:
        """One search over given candidates ``(I, B, S, H, A)``."""
        latents = self.model.encode(torch.cat([scene.picture, scene.goal_picture], dim=1))
        nothing = candidates.new_zeros(len(latents), 0, candidates.shape[-1])
        observed, costs = self.predictor.observe(latents[:, :1, None], nothing), list[Tensor]()
        for actions in candidates:
            last = self.predictor.rollout(observed, actions, last_only=True)[:, :, 0, 0]
            costs.append((last - latents[:, 1:]).square().sum(-1))
            mean = elite_mean(actions, costs[-1], self.search.topk)
        return Scored(candidates, torch.stack(costs), mean)


def gigaflop(sizes: Sizes, search: Search) -> dict[str, float]:
    """What either arm has to compute in a search."""
    layer = rival_flops.Layer(sizes, 1, sizes.width, modulated=True)
    iterations, pictures = search.iterations * search.problems, 2 * rival_flops.encoder(sizes)
    return {
        "theirs": iterations * (search.samples * rival_flops.theirs(layer, search.horizon) + pictures),
        "ours": iterations * search.samples * rival_flops.ours(layer, search.horizon) + search.problems * pictures,
    }


def run(
    sizes: Sizes,
    search: Search,
    runs: int,
    out: Path,
    threads: int = 2,
    chunk: int = 150,
    rival: tuple[Path, Path] | None = None,
) -> dict[str, Any]:
    """Race both; the table's numbers, also in `out`.

    Args:
        sizes: Of the model.
        search: Of the search.
        runs: Timed runs.
        out: File.
        threads: Of torch.
        chunk: Candidates that ours rolls out at a time.
        rival: Folders of stable-worldmodel and LeWM, or None for the reference loop.

    Raises:
        BadInputError: `rival` lacks something, the costs do not agree, or `out` cannot be written.
    """
    require_writable(out)
    about = machine(threads)
    torch.manual_seed(search.seed)
    state, encoder, scene = lewm_state(sizes, search.seed), PictureEncoder(sizes), Scene.random(sizes, search)
    theirs: Theirs | LeWMCode = Theirs(state, sizes, encoder, search)
    if rival is not None:
        theirs = LeWMCode(*rival, state, sizes, encoder, search)
    ours = Ours(state, sizes, encoder, search, chunk)
    arms = (lambda: theirs.plan(scene), lambda candidates: ours.plan(scene, candidates))
    name = "reference loop" if rival is None else "its own code"
    result = settings("rival_cem_lewm", name, about, sizes, search, chunk)
    result |= race(*arms, runs, gigaflop(sizes, search))
    result["rival_commits"] = [] if rival is None else [revision(folder) for folder in rival]
    write_json(out, result)
    return result


def main(
    out: Annotated[Path, typer.Option(help="File of the result.")] = Path("rival_cem_lewm.json"),
    samples: Annotated[int, typer.Option(help="Candidates of an iteration.", min=2)] = 300,
    iterations: Annotated[int, typer.Option(help="Timed iterations of a search.", min=1)] = 30,
    topk: Annotated[int, typer.Option(help="Elites.", min=2)] = 30,
    horizon: Annotated[int, typer.Option(help="Latent steps.", min=1)] = 5,
    problems: Annotated[int, typer.Option(help="Problems planned at a time.", min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Timed searches of each, in turn.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 2,
    chunk: Annotated[int, typer.Option(help="Candidates that ours rolls out at a time.", min=1)] = 150,
    image: Annotated[int, typer.Option(help="Side of the encoder's picture (px).", min=14)] = 224,
    depth: Annotated[int, typer.Option(help="Layers of the predictor.", min=1)] = 6,
    encoder_depth: Annotated[int, typer.Option(help="Layers of the encoder.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Of weights, problems and noise.", min=0, max=2**63 - 1)] = 0,
    rival: Annotated[Path | None, typer.Option(help="Folder with stable-worldmodel's code, to run it instead.")] = None,
    rival_model: Annotated[Path | None, typer.Option(help="Folder with LeWM's code; goes with --rival.")] = None,
) -> None:
    """Race stable-worldmodel's CEM against ours; exit code 3 when ours is less than 1.5 times as fast."""
    if (rival is None) != (rival_model is None):
        raise BadInputError("--rival and --rival-model: expected both folders or none, came one.")
    folders = None if rival is None or rival_model is None else (rival, rival_model)
    sizes = dataclasses.replace(LEWM, image=image, depth=depth, encoder_depth=encoder_depth)
    search = Search(samples, iterations, topk, horizon, problems, seed)
    result = run(sizes, search, runs, out, threads, chunk, folders)
    Console().print_json(data=result)
    judge(result["ratio"] >= 1.5)


if __name__ == "__main__":
    launch(main)
