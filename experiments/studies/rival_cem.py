"""Same weights, same noise, same candidates: a plan by DINO-WM's CEM algorithm and by ours. How much faster is ours?

    python -m wm.experiments.studies.rival_cem --out studies/rival_cem.json

The rival encodes the picture once per candidate and iteration, computes whole windows with dense masked attention, and
takes one problem after the other. Ours encodes once, and rolls out as `wm.frame_causal` says. Both score the candidates
that the rival draws; their costs have to agree to rounding. With ``--rival DIR`` the rival is DINO-WM's own code in
that folder (github.com/gaoyuezhou/dino_wm), otherwise `rival_reference.DinoWM`.

A whole plan of the rival takes hours on a CPU: ``--iterations`` says how many of its 30 are timed. At 300 candidates it
holds several tensors of 6.6 GB, all attention scores at once: ``--samples 64`` fits a machine with 8 GB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from wm.experiments.atomic import require_writable, write_json
from wm.experiments.studies import rival_flops
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import machine
from wm.experiments.studies.rival_code import DinoWMCode
from wm.experiments.studies.rival_import import revision
from wm.experiments.studies.rival_reference import DinoWM, PictureEncoder
from wm.experiments.studies.rival_search import Scene, Scored, Search, elite_mean, race, settings
from wm.experiments.studies.rival_weights import Sizes, State, dino_wm_state
from wm.foreign_weights import from_dino_wm
from wm.patch_predictor import PatchPredictor


class Theirs:
    """DINO-WM's CEM, done as it does it: iterations outside, problems one by one, all copies encoded and rolled out."""

    def __init__(self, state: State, sizes: Sizes, encoder: nn.Module, search: Search) -> None:
        self.model, self.sizes, self.search = DinoWM(state, sizes, encoder), sizes, search

    @torch.no_grad()
    def plan(self, scene: Scene) -> Scored:
        """One search."""
        search, model = self.search, self.model
        torch.manual_seed(search.seed)
        goals = model.encode(scene.goal_picture, scene.goal_proprio)
        mean = torch.zeros(search.problems, search.horizon, self.sizes.action_width)
        deviation, candidates, costs = torch.ones_like(mean), list[Tensor](), list[Tensor]()
        for _ in range(search.iterations):
            for problem in range(search.problems):
                picture, proprio, goal = (
                    each[problem].expand(search.samples, *each.shape[1:]).contiguous()
                    for each in (scene.picture, scene.proprio, goals)
                )
                actions = torch.randn(search.samples, *mean.shape[1:]) * deviation[problem] + mean[problem]
                actions[0] = mean[problem]
                cost = model.cost(model.rollout(picture, proprio, actions), goal[:, 0])
                elites = actions[cost.argsort()[: search.topk]]
                mean[problem], deviation[problem] = elites.mean(0), elites.std(0)
                candidates.append(actions)
                costs.append(cost)
        shape = (search.iterations, search.problems)
        return Scored(torch.stack(candidates).unflatten(0, shape), torch.stack(costs).unflatten(0, shape), mean)


class Ours:
    """The same search by our code: encoded once, problems in one batch, `wm.frame_causal`'s rollout."""

    def __init__(self, state: State, sizes: Sizes, encoder: nn.Module, search: Search, chunk: int) -> None:
        self.encoder, self.search = encoder, search
        self.predictor = PatchPredictor(
            patches=sizes.patches,
            width=sizes.width,
            proprio_width=sizes.proprio_width,
            action_width=sizes.action_width,
            proprio_embedding=sizes.embedding,
            action_embedding=sizes.embedding,
            window=sizes.window,
            depth=sizes.depth,
            heads=sizes.heads,
            head_width=sizes.head_width,
            hidden=sizes.hidden,
            chunk=chunk,
        ).requires_grad_(False)
        from_dino_wm(self.predictor, state)

    @torch.inference_mode()
    def plan(self, scene: Scene, candidates: Tensor) -> Scored:
        """One search over given candidates ``(I, B, S, H, A)``."""
        predictor, pictures = self.predictor, torch.cat([scene.picture, scene.goal_picture], dim=1)
        tokens = self.encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        frames = predictor.frames(tokens, torch.cat([scene.proprio, scene.goal_proprio], dim=1))
        observed = predictor.observe(frames[:, :1], candidates.new_zeros(len(frames), 0, candidates.shape[-1]))
        (goal, goal_proprio), costs = predictor.split(frames[:, 1:]), list[Tensor]()
        for actions in candidates:
            last, proprio = predictor.split(predictor.rollout(observed, actions, last_only=True)[:, :, 0])
            costs.append((last - goal).square().mean((-1, -2)) + (proprio - goal_proprio).square().mean(-1))
            mean = elite_mean(actions, costs[-1], self.search.topk)
        return Scored(candidates, torch.stack(costs), mean)


def gigaflop(sizes: Sizes, search: Search) -> dict[str, float]:
    """What either arm has to compute in a search."""
    layer = rival_flops.Layer(sizes, sizes.patches, sizes.width + 2 * sizes.embedding, modulated=False)
    rollouts, picture = search.iterations * search.problems * search.samples, rival_flops.encoder(sizes)
    return {
        "theirs": rollouts * (rival_flops.theirs(layer, search.horizon) + picture) + search.problems * picture,
        "ours": rollouts * rival_flops.ours(layer, search.horizon) + 2 * search.problems * picture,
    }


def run(
    sizes: Sizes, search: Search, runs: int, out: Path, threads: int = 2, chunk: int = 4, rival: Path | None = None
) -> dict[str, Any]:
    """Race both; the table's numbers, also in `out`.

    Raises:
        BadInputError: `rival` lacks something, the costs do not agree, or `out` cannot be written.
    """
    require_writable(out)
    about = machine(threads)
    torch.manual_seed(search.seed)
    state, encoder, scene = dino_wm_state(sizes, search.seed), PictureEncoder(sizes), Scene.random(sizes, search)
    theirs: Theirs | DinoWMCode = Theirs(state, sizes, encoder, search)
    if rival is not None:
        theirs = DinoWMCode(rival, state, sizes, encoder, search)
    ours = Ours(state, sizes, encoder, search, chunk)
    arms = (lambda: theirs.plan(scene), lambda candidates: ours.plan(scene, candidates))
    name = "reference loop" if rival is None else "its own code"
    result = settings("rival_cem", name, about, sizes, search, chunk)
    result |= race(*arms, runs, gigaflop(sizes, search))
    result["rival_commits"] = [] if rival is None else [revision(rival)]
    write_json(out, result)
    return result


def main(
    out: Annotated[Path, typer.Option(help="File of the result.")] = Path("rival_cem.json"),
    samples: Annotated[int, typer.Option(help="Candidates of an iteration.", min=2)] = 300,
    iterations: Annotated[int, typer.Option(help="Timed iterations of a search.", min=1)] = 1,
    topk: Annotated[int, typer.Option(help="Elites.", min=2)] = 30,
    horizon: Annotated[int, typer.Option(help="Latent steps.", min=1)] = 5,
    problems: Annotated[int, typer.Option(help="Problems planned at a time.", min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Timed searches of each, in turn.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 2,
    chunk: Annotated[int, typer.Option(help="Candidates that ours rolls out at a time.", min=1)] = 4,
    image: Annotated[int, typer.Option(help="Side of the encoder's picture (px).", min=14)] = 196,
    depth: Annotated[int, typer.Option(help="Layers of the predictor.", min=1)] = 6,
    encoder_depth: Annotated[int, typer.Option(help="Layers of the encoder.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Of weights, problems and noise.", min=0, max=2**63 - 1)] = 0,
    rival: Annotated[Path | None, typer.Option(help="Folder with DINO-WM's code, to run it instead.")] = None,
) -> None:
    """Race DINO-WM's CEM against ours; exit code 3 when ours is less than 3 times as fast."""
    sizes = Sizes(image=image, depth=depth, encoder_depth=encoder_depth)
    search = Search(samples, iterations, topk, horizon, problems, seed)
    result = run(sizes, search, runs, out, threads, chunk, rival)
    Console().print_json(data=result)
    judge(result["ratio"] >= 3)


if __name__ == "__main__":
    launch(main)
