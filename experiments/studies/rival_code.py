"""The rivals' own code, out of a folder with their repository, planning on the weights and problems of a study."""

from __future__ import annotations

import contextlib
import importlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.experiments.studies.rival_import import importing, module_of, noting, on_cpu, require, under
from wm.experiments.studies.rival_reference import PictureEncoder
from wm.experiments.studies.rival_search import Scene, Scored, Search
from wm.experiments.studies.rival_weights import Sizes, State


class DinoWMCode:
    """DINO-WM's world model and CEM planner, from a folder with its repository.

    Its attention puts its mask on a GPU, its planner reports to a logger and asks a simulator, and its world model
    resizes pictures with torchvision; here the mask stays on the CPU, reports are dropped, there is no simulator, and
    the pictures have their size already.

    Raises:
        BadInputError: a file or a package that it needs is missing.
    """

    def __init__(self, folder: Path, state: State, sizes: Sizes, encoder: nn.Module, search: Search) -> None:
        files = ("models/vit.py", "models/visual_world_model.py", "models/proprio.py", "planning/cem.py")
        require("--rival", folder, (*files, "planning/objectives.py"), ("einops",))
        resize = SimpleNamespace(Compose=lambda parts: parts[0], Resize=lambda size: lambda pictures: pictures)
        stand_ins = {
            "torchvision": module_of("torchvision", transforms=resize),
            "utils": module_of("utils", move_to_device=lambda numbers, device: numbers),
        }
        with (
            importing(folder, ("models", "planning"), stand_ins),
            on_cpu(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            vit, proprio, world, cem, objectives = (
                importlib.import_module(name)
                for name in (
                    "models.vit",
                    "models.proprio",
                    "models.visual_world_model",
                    "planning.cem",
                    "planning.objectives",
                )
            )
            self.world: Any = _dino_wm(vit, proprio, world, sizes, encoder)
        self.world.eval()
        for name in ("predictor", "proprio_encoder", "action_encoder"):
            getattr(self.world, name).load_state_dict(under(state, name))
        self.world.requires_grad_(False)
        self.search, self.make = search, cem.CEMPlanner
        self.objective = objectives.create_objective_fn(alpha=1, base=2, mode="last")
        self.action_width = sizes.action_width

    def plan(self, scene: Scene) -> Scored:
        """One search."""
        search, candidates, costs = self.search, list[Tensor](), list[Tensor]()
        rolling = noting(self.world.rollout, lambda known, result: candidates.append(known["act"]))
        with mock.patch.object(self.world, "rollout", rolling):
            planner = self.make(
                horizon=search.horizon,
                topk=search.topk,
                num_samples=search.samples,
                var_scale=1,
                opt_steps=search.iterations,
                eval_every=1,
                wm=self.world,
                action_dim=self.action_width,
                objective_fn=noting(self.objective, lambda known, result: costs.append(result)),
                preprocessor=SimpleNamespace(transform_obs=dict),
                evaluator=None,
                wandb_run=SimpleNamespace(log=lambda values: None),
                log_filename=None,
            )
            torch.manual_seed(search.seed)
            now = {"visual": scene.picture, "proprio": scene.proprio}
            plan, _ = planner.plan(now, {"visual": scene.goal_picture, "proprio": scene.goal_proprio})
        shape = (search.iterations, search.problems)
        return Scored(torch.stack(candidates).unflatten(0, shape), torch.stack(costs).unflatten(0, shape), plan)


class LeWMCode:
    """stable-worldmodel's CEM solver on LeWM's world model, from two folders with their repositories.

    Raises:
        BadInputError: a file or a package that they need is missing, or another window than LeWM's three frames.
    """

    def __init__(
        self, folder: Path, model_folder: Path, state: State, sizes: Sizes, encoder: PictureEncoder, search: Search
    ) -> None:
        solver = ("cem.py", "solver.py", "utils.py", "callbacks/__init__.py")
        files = tuple(f"stable_worldmodel/planning/solver/{name}" for name in solver)
        require("--rival", folder, (*files, "stable_worldmodel/protocols.py"), ("gymnasium",))
        require("--rival-model", model_folder, ("jepa.py", "module.py"), ("einops",))
        if sizes.window != 3:
            raise BadInputError(f"window: LeWM's code rolls out over 3 frames, came {sizes.window}.")
        # its packages' own __init__ import environments, data sets and all other solvers
        package = "stable_worldmodel"
        inner = {package: folder / package, f"{package}.planning": folder / package / "planning"}
        inner[f"{package}.planning.solver"] = folder / package / "planning" / "solver"
        stand_ins = {name: module_of(name, __path__=[str(path)]) for name, path in inner.items()}
        with importing(folder, (package,), stand_ins):
            self.make = importlib.import_module(f"{package}.planning.solver.cem").CEMSolver
        with importing(model_folder, ("jepa", "module"), {}):
            jepa, module = importlib.import_module("jepa"), importlib.import_module("module")
        self.model: Any = _lewm(jepa, module, sizes, encoder).eval().requires_grad_(False)
        for name in ("predictor", "action_encoder", "projector", "pred_proj"):
            getattr(self.model, name).load_state_dict(under(state, name))
        self.search, self.action_width = search, sizes.action_width

    def plan(self, scene: Scene) -> Scored:
        """One search."""
        import gymnasium

        search, noted = self.search, list[tuple[Tensor, Tensor]]()
        costing = noting(self.model.get_cost, lambda known, cost: noted.append((known[1].clone(), cost)))
        solver = self.make(
            SimpleNamespace(get_cost=costing),
            num_samples=search.samples,
            n_steps=search.iterations,
            topk=search.topk,
            seed=search.seed,
        )
        space = gymnasium.spaces.Box(-1, 1, (search.problems, self.action_width))
        plan_config = SimpleNamespace(horizon=search.horizon, action_block=1)
        solver.configure(action_space=space, n_envs=search.problems, config=plan_config)
        nothing = torch.zeros(search.problems, 1, self.action_width)
        with contextlib.redirect_stdout(io.StringIO()):
            found = solver.solve({"pixels": scene.picture, "goal": scene.goal_picture, "action": nothing})
        # (B * I, 1, S, …): it takes one problem through all of its iterations, then the next
        shape = (search.problems, search.iterations)
        candidates, costs = (torch.cat(each).unflatten(0, shape).transpose(0, 1) for each in zip(*noted, strict=True))
        return Scored(candidates, costs, found["actions"])


def _dino_wm(vit: Any, proprio: Any, world: Any, sizes: Sizes, encoder: nn.Module) -> nn.Module:
    def embedding(inputs: int) -> nn.Module:
        made: nn.Module = proprio.ProprioceptiveEmbedding(1, 1, inputs, sizes.embedding)
        return made

    predictor = vit.ViTPredictor(
        num_patches=sizes.patches,
        num_frames=sizes.window,
        dim=sizes.width + 2 * sizes.embedding,
        depth=sizes.depth,
        heads=sizes.heads,
        mlp_dim=sizes.hidden,
        pool="mean",
        dim_head=sizes.head_width,
        dropout=0.1,
        emb_dropout=0.0,
    )
    made: nn.Module = world.VWorldModel(
        image_size=sizes.image // sizes.patch * 16,  # it works its encoder's picture size out from this one
        num_hist=sizes.window,
        num_pred=1,
        encoder=encoder,
        proprio_encoder=embedding(sizes.proprio_width),
        action_encoder=embedding(sizes.action_width),
        decoder=None,
        predictor=predictor,
        proprio_dim=sizes.embedding,
        action_dim=sizes.embedding,
        concat_dim=1,
        num_action_repeat=1,
        num_proprio_repeat=1,
    )
    return made


def _lewm(jepa: Any, module: Any, sizes: Sizes, encoder: PictureEncoder) -> nn.Module:
    class HubEncoder(nn.Module):
        """The encoder as transformers' models are called."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, pictures: Tensor, interpolate_pos_encoding: bool) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=self.encoder.tokens(pictures))

    width = sizes.width
    predictor = module.ARPredictor(
        num_frames=sizes.window,
        input_dim=width,
        hidden_dim=width,
        output_dim=width,
        depth=sizes.depth,
        heads=sizes.heads,
        mlp_dim=sizes.hidden,
        dim_head=sizes.head_width,
        dropout=0.1,
    )
    embedder = module.Embedder(input_dim=sizes.action_width, smoothed_dim=sizes.action_width, emb_dim=width)
    projections = (module.MLP(width, sizes.hidden, width, norm_fn=nn.BatchNorm1d) for _ in range(2))
    made: nn.Module = jepa.JEPA(HubEncoder(), predictor, embedder, *projections)
    return made
