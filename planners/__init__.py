"""Planning as energy minimisation: energies, guardrails, solvers and receding-horizon control.

A solver sees a rollout function, energies and guardrails; never an environment, a logger or the true success.
"""

from wm.planners.base import Problem, Solver
from wm.planners.cem import CEM
from wm.planners.icem import ICEM
from wm.planners.mpc import MPC

__all__ = ["CEM", "ICEM", "MPC", "Problem", "Solver"]
