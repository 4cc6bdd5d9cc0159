"""Objectives that an encoder is trained under without labels: one file each, by name."""

from __future__ import annotations

from wm.errors import UnknownNameError
from wm.objectives.acjepa import AcjepaConfig
from wm.objectives.barlow import BarlowConfig
from wm.objectives.base import ObjectiveConfig
from wm.objectives.dino import DinoConfig
from wm.objectives.ijepa import IjepaConfig
from wm.objectives.mcr2 import Mcr2Config
from wm.objectives.mmcr import MmcrConfig
from wm.objectives.sigreg import SigregConfig
from wm.objectives.simclr import SimclrConfig
from wm.objectives.vicreg import VicregConfig
from wm.objectives.vjepa import VjepaConfig

OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    config.name: config
    for config in (
        AcjepaConfig, DinoConfig, IjepaConfig, VjepaConfig, VicregConfig, SigregConfig, Mcr2Config, MmcrConfig,
        BarlowConfig, SimclrConfig,
    )
}  # fmt: skip
"""Name to the class of its settings, which builds it."""


def find_objective(name: str) -> type[ObjectiveConfig]:
    """The settings' class of an objective.

    Raises:
        UnknownNameError: no objective of that name.
    """
    if name not in OBJECTIVES:
        raise UnknownNameError("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
