"""Planning as energy minimisation: energies, guardrails, solvers and receding-horizon control.

A solver sees a rollout function, energies and guardrails; never an environment, a logger or the true success.
"""

from wm.planners.adaptive_icem import AdaptiveICEM
from wm.planners.base import Problem, Solver
from wm.planners.cem import CEM
from wm.planners.cma_es import CMAES
from wm.planners.gradient import Gradient
from wm.planners.gradient_cem import GradientCEM
from wm.planners.icem import ICEM
from wm.planners.lbfgs import LBFGS
from wm.planners.mpc import MPC
from wm.planners.mppi import MPPI
from wm.planners.predictive_sampling import PredictiveSampling

__all__ = [
    "CEM",
    "CMAES",
    "ICEM",
    "LBFGS",
    "MPC",
    "MPPI",
    "AdaptiveICEM",
    "Gradient",
    "GradientCEM",
    "PredictiveSampling",
    "Problem",
    "Solver",
]
