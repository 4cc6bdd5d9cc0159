"""`wm train`: a world model on the logs of a store and a frozen encoder, with a held-out report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor

import wm
from wm.adversarial import require_radius
from wm.checkpoint import load_tensors
from wm.datasets.reader import EpisodeStore
from wm.encoders.base import Encoder, fingerprint
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.atomic import write_json
from wm.experiments.encode import log_states, log_tokens, narrowed, open_encoder
from wm.experiments.logs import log_windows, random_rows
from wm.experiments.options import at_least
from wm.experiments.report.training import training_report
from wm.experiments.run_folder import claimed
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.model import BANK, FORMS, WorldModel, build_joint, build_model
from wm.patch_head import PatchHead
from wm.probe import LinearProbe, error_by_horizon
from wm.proposal import train_proposal
from wm.specs import EnvSpec, ModelSpec, PatchSizes, require_equal
from wm.state_head import StateHead
from wm.train import (
    TrainConfig,
    patch_config,
    strokes_config,
    train_head,
    train_patch_head,
    train_predictor,
)

REPORT_HORIZON = 8
PROBE_FRAMES, PROBE_NUMBERS = 20_000, 512
"""What a probe is fitted to; of many tokens the first of their principal components, so that it takes seconds."""
MOST_PROBED = 40
"""Numbers of a true state beyond which no probe is made: of many like things no picture tells which is which."""


def run(data: Path, encoder_path: Path | str, out: Path, config: TrainConfig, seed: int) -> Path:
    """Train and write `<out>/model.safetensors` and the report.

    An interrupted run is continued, a finished one left as it is.

    Args:
        data: Episode store.
        encoder_path: An encoder of `wm pretrain`, or a compact model of `wm refine` or `wm train`, whose head is then
            kept and only rescaled (in the patch form it becomes the read-out, whatever its size); of another model the
            encoder alone; or the name or folder of a public encoder
            (`wm.encoders.registry.load_public`).
        out: Run folder.
        config: Sizes and schedule.
        seed: Of everything random.

    Raises:
        StoreError, CheckpointError: data or encoder cannot be read.
        BadInputError: a number is out of its range.
        MismatchError: a model of another world or of other sizes; `out` or the feature cache belongs to something else.
    """
    sizes = {"width": config.width, "hidden": config.hidden, "depth": config.depth, "steps": config.predictor.steps}
    at_least(1, episodes=config.episodes, frameskip=config.frameskip, **sizes)
    at_least(0, seed=seed)
    require_radius(config.adversarial, config.form)
    store = EpisodeStore(data)
    encoder, base = open_encoder(str(encoder_path), store.spec.image_size)
    if len(store) < 20:
        raise BadInputError(f"{data}: expected at least 20 episodes to train on, came {len(store)}.")
    if base is not None and config.patch is not None:
        if _lends_its_head(base, config.patch):
            config = replace(config, patch=replace(config.patch, read_out=base.spec.width - _proprio_width(store)))
        else:
            base = None
    learned = None if base is None else base.joint.head
    if base is not None:
        require_equal("model of another world than the data", store.spec.env, base.spec.env, encoder_path)
        wanted, came = (config.tokens, _state_width(store, config)), (base.spec.tokens, base.spec.width)
        require_equal("tokens and width (proprioception included) of the refined head", wanted, came, encoder_path)
    made_of = {"seed": seed, "data": store.fingerprint(), "encoder": encoder.spec().to_json()}
    made_of |= {"head": "fitted" if learned is None else fingerprint(learned)}
    path = out / "model.safetensors"
    identity = asdict(config) | made_of
    if config.adversarial == 0:  # folders of runs from before there was this option stay theirs
        del identity["adversarial"]
    with claimed(out, identity):
        if path.exists() and (out / "report.png").exists():
            return path
        torch.manual_seed(seed)
        episodes = min(config.episodes or len(store), len(store))
        encoder = narrowed(encoder, store, out, episodes)
        joint, states = _head_and_states(store, encoder, learned, out, replace(config, episodes=episodes))
        windows, _ = _windows(store, states, config, config.horizon, episodes)
        train_predictor(joint, windows, config, out)
    model = _model(store, encoder, joint, windows, config, out)
    # Where the window of the patch form ends with its reach, it is not made to go further.
    ahead = REPORT_HORIZON if config.patch is None or config.patch.window else config.horizon
    _, held_out = _windows(store, states, config, ahead, episodes)
    model.remember(states[random_rows(windows, BANK * 4)], states[random_rows(held_out, 8192)])
    model.save(path, _provenance(store, encoder, encoder_path, config, seed))
    report = held_out_report(model, windows, held_out, states, store.all_state()[: len(states)])
    write_json(out / "report.json", report)
    training_report(out, report)
    return path


def _spec(store: EpisodeStore, encoder: Encoder, config: TrainConfig) -> ModelSpec:
    return ModelSpec(
        env=store.spec.env,
        encoder=encoder.spec(),
        frameskip=config.frameskip,
        history=config.history,
        tokens=config.tokens if config.form == "compact" else encoder.grid**2,
        width=_width(store, encoder, config),
        hidden=config.hidden,
        depth=config.depth,
        proposals=config.proposals,
        reach=config.horizon,
        form=config.form,
        patch=None if config.patch is None else _patch_sizes(store, config.patch),
    )


def _lends_its_head(base: WorldModel, sizes: PatchSizes) -> bool:
    """A compact model's head can be the patch form's read-out; of another model the encoder alone is of use."""
    return base.spec.form == "compact" and base.spec.tokens == 1 and sizes.read_out > 0


def _patch_sizes(store: EpisodeStore, sizes: PatchSizes) -> PatchSizes:
    """With what the robot reports among the numbers of the read-out."""
    return replace(sizes, read_out=sizes.read_out + _proprio_width(store)) if sizes.read_out else sizes


def _proprio_width(store: EpisodeStore) -> int:
    return 0 if store.spec.env.proprio is None else store.spec.env.proprio.width


def _state_width(store: EpisodeStore, config: TrainConfig) -> int:
    """Numbers of the compact form's state, or of the patch form's read-out."""
    seen = config.width if config.patch is None else config.patch.read_out
    return seen + _proprio_width(store)


def _width(store: EpisodeStore, encoder: Encoder, config: TrainConfig) -> int:
    """Numbers of a token: what is seen, and in the compact form what the robot reports."""
    if config.form == "patch":
        return min(config.width, encoder.width)
    return _state_width(store, config)


def _head_and_states(
    store: EpisodeStore, encoder: Encoder, learned: StateHead | None, out: Path, config: TrainConfig
) -> tuple[JointModel[Any], Tensor]:
    """State head (the learned one rescaled, or one in closed form) before a fresh predictor; states of all frames."""
    joint, episodes = build_joint(_spec(store, encoder, config)), config.episodes or len(store)
    joint.head.requires_grad_(False)
    seen = episodes if encoder.by_reference else min(config.head_episodes, episodes)
    tokens = log_tokens(store, encoder, store.path, seen)
    windows, _ = _windows(store, tokens, config, 1, seen)
    if isinstance(joint.head, PatchHead):
        with Console(stderr=True).status("patch head: principal components"):
            train_patch_head(joint.head, windows, config, out, learned)
    else:
        if learned is not None:
            joint.head.load_state_dict(learned.state_dict())
        with Console(stderr=True).status("state head: slow features"):
            train_head(joint.head, windows, config, out, learned is not None)
    return joint, log_states(store, encoder, joint.head, out / "states", episodes)


def _windows(
    store: EpisodeStore, observations: Tensor, config: TrainConfig, horizon: int, episodes: int
) -> tuple[LogWindows, LogWindows]:
    """Windows as the form wants them: a predictor of strokes knows what an action means, and takes it raw."""
    return log_windows(
        store,
        observations,
        history=config.history,
        horizon=horizon,
        frameskip=config.frameskip,
        episodes=episodes,
        raw_actions=config.form == "strokes",
    )


def _model(
    store: EpisodeStore,
    encoder: Encoder,
    joint: JointModel[Any],
    windows: LogWindows,
    config: TrainConfig,
    out: Path,
) -> WorldModel:
    """The trained parts as one model, its proposal trained."""
    model = build_model(_spec(store, encoder, config), encoder, windows.action_moments, windows.proprio_moments)
    model.joint.load_state_dict(joint.state_dict())
    if model.proposal is not None:
        model.proposal.requires_grad_(True)
        train_proposal(model.proposal, _read_out(model, windows), config.history, config.proposal, out)
        model.proposal.requires_grad_(False)
    return model


@torch.inference_mode()
def _read_out(model: WorldModel, windows: LogWindows) -> LogWindows:
    """Windows of what a proposal looks at: the read-out, where the model has one."""
    if not model.spec.read_out:
        return windows
    shape = (model.spec.tokens, model.spec.width)
    parts = torch.as_tensor(windows.log.observations).split(4096)
    found = torch.cat([model.read_out(part.float().unflatten(-1, shape)).flatten(1) for part in parts])
    return replace(windows, log=replace(windows.log, observations=found))


def held_out_report(
    model: WorldModel, train: LogWindows, held_out: LogWindows, states: Tensor, truth: np.ndarray
) -> dict[str, object]:
    """Prediction error against horizon beside copying, and a linear probe of the true state (a diagnostic only)."""
    error, copy = error_by_horizon(model.joint, held_out, model.spec.tokens * model.spec.width)
    rows, test = random_rows(train, PROBE_FRAMES), random_rows(held_out, PROBE_FRAMES)
    probe: dict[str, dict[str, float]] = {}
    if len(model.spec.env.state_names) <= MOST_PROBED:
        names, targets = probe_targets(model.spec.env.state_names, truth)
        shape = (model.spec.tokens, model.spec.width)
        seen, unseen = (_leading(states[each], shape) for each in (rows, test))
        score, rmse = LinearProbe(seen, targets[rows]).score(unseen, targets[test])
        probe = {n: {"r2": r, "rmse": e} for n, r, e in zip(names, score, rmse, strict=True)}
    return {
        "latent_steps": list(range(1, len(error) + 1)),
        "error": error,
        "copy_last": copy,
        "share_of_copy": [e / c for e, c in zip(error, copy, strict=True)],
        "probe": probe,
        "state_std": float(states[test].float().std(0).mean()),
    }


def _leading(states: Tensor, shape: tuple[int, int]) -> Tensor:
    """At most `PROBE_NUMBERS` of states ``(M, N * D)``: as many of each token's first numbers."""
    tokens = states.float().unflatten(1, shape)
    return tokens[..., : max(1, PROBE_NUMBERS // shape[0])].flatten(1)


def probe_targets(names: Sequence[str], state: np.ndarray) -> tuple[list[str], Tensor]:
    """The true state's places and angles, ``(O, K)`` and their names; an angle as its cosine and its sine.

    Velocities are left out, for a single frame does not show them, and numbers that never change.
    """
    found: dict[str, np.ndarray] = {}
    for name, values in zip(names, state.T, strict=False):
        if np.ptp(values) < 1e-9:
            continue
        if "angle" in name:
            found |= {f"cos({name})": np.cos(values), f"sin({name})": np.sin(values)}
        elif not name.rpartition("_")[2].startswith("v"):
            found[name] = values
    return list(found), torch.from_numpy(np.stack(list(found.values()), axis=1)).float()


def _provenance(
    store: EpisodeStore, encoder: Encoder, encoder_path: Path | str, config: TrainConfig, seed: int
) -> dict[str, object]:
    own = None if encoder.by_reference else load_tensors(Path(encoder_path))[1].get("provenance")
    return {
        "command": "wm train",
        "seed": seed,
        "data": store.spec.recipe | {"episodes": len(store), "fingerprint": store.fingerprint()},
        "encoder": encoder.spec().to_json() if encoder.by_reference else own,
        "predictor_steps": config.predictor.steps,
        "proposal_steps": config.proposal.steps if config.proposals else 0,
        **({"adversarial": config.adversarial} if config.adversarial > 0 else {}),
        "wm": wm.__version__,
        "torch": torch.__version__,
    }


def config_for(env: EnvSpec, form: str | None = None) -> TrainConfig:
    """What suits a world.

    Args:
        env: The world.
        form: See `wm.specs.ModelSpec`; None: by the world's actions.

    Raises:
        UnknownNameError: no such form.
    """
    if form is not None and form not in FORMS:
        raise UnknownNameError("form of a world model", form, FORMS)
    strokes = env.action.segment is not None
    if form == "strokes" or (form is None and strokes):
        return strokes_config()
    config = patch_config() if form == "patch" else TrainConfig()
    config = replace(config, predictor=replace(config.predictor, steps=6000))
    return replace(config, frameskip=1, proposals=0) if strokes else config


def scheduled(config: TrainConfig, steps: int, seed: int) -> TrainConfig:
    """The same with other predictor steps, and one seed everywhere."""
    predictor, proposal = replace(config.predictor, steps=steps, seed=seed), replace(config.proposal, seed=seed)
    return replace(config, predictor=predictor, proposal=proposal)


def main(
    data: Annotated[Path, typer.Argument(help="Episode store.")],
    encoder: Annotated[
        str, typer.Option(help="File of `wm pretrain` or `wm refine`, or a public encoder: see docs/encoders.md.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is continued.")],
    form: Annotated[
        str | None, typer.Option(help="compact or patch; when left out compact, or strokes where actions are strokes.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of the predictor (6000; of strokes 8000).")] = None,
    width: Annotated[
        int | None, typer.Option(help="Numbers in the state (32); of each patch (48 or the encoder's; strokes 1).")
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Use the first episodes only.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of the predictor (384; of strokes 256).")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers of the predictor (3; patch 4; strokes 2).")] = None,
    frameskip: Annotated[int | None, typer.Option(help="Control steps per latent step (5; of strokes 1).")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    adversarial: Annotated[
        float, typer.Option(metavar="R", help="Train where the predictor errs, R std from the log, e.g. 0.05; 0: not.")
    ] = 0.0,
) -> None:
    """Train a world model on a store's logs, on top of a frozen encoder.

    Its form: compact has a few numbers for the whole frame, for real time; patch a token for each patch of the picture,
    as DINO-WM. A world of strokes, where an action is a segment of the picture's plane, has a form of its own.
    """
    config = config_for(EpisodeStore(data).spec.env, form)
    config = replace(
        config,
        width=config.width if width is None else width,
        hidden=config.hidden if hidden is None else hidden,
        depth=config.depth if depth is None else depth,
        frameskip=config.frameskip if frameskip is None else frameskip,
        episodes=episodes,
        adversarial=adversarial,
    )
    config = scheduled(config, config.predictor.steps if steps is None else steps, seed)
    path = run(data, encoder, out, config, seed)
    print(f"{path}: trained; report in {out / 'report.json'} and {out / 'report.png'}")
