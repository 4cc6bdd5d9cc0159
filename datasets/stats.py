"""Mean and standard deviation of logged numbers, for normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm.errors import BadInputError

_BLOCK = 65536  # rows converted to float64 at a time


@dataclass(frozen=True)
class Statistics:
    """Of each column over a whole dataset.

    Attributes:
        mean: ``(D,)`` float64, the column's unit.
        std: ``(D,)`` float64, population standard deviation, > 0: a column that never changes has 1, so that
            normalising it gives zeros.
    """

    mean: np.ndarray
    std: np.ndarray

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists; `from_json` is its inverse, exactly."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, list[float]]) -> Statistics:
        """Build from `to_json`'s output.

        Raises:
            BadInputError: other fields, lists of different lengths, a number that is not finite, a std that is not
                positive.
        """
        if set(data) != {"mean", "std"}:
            raise BadInputError(f"statistics: expected the fields mean and std, came {sorted(data)}.")
        mean, std = np.array(data["mean"], np.float64), np.array(data["std"], np.float64)
        if mean.shape != std.shape or not np.isfinite([mean, std]).all() or not (std > 0).all():
            raise BadInputError(f"statistics: expected finite means and as many positive stds, came {data}.")
        return cls(mean, std)


def statistics(array: np.ndarray, name: str = "array") -> Statistics:
    """Statistics of each column, in two passes in float64.

    Args:
        array: ``(rows, D)``, at least one row.
        name: What it is, for the message.

    Raises:
        BadInputError: not two axes, no rows, or a number that is NaN or infinite.
    """
    if array.ndim != 2 or len(array) == 0:
        raise BadInputError(f"statistics of {name}: expected shape (rows, D) with rows >= 1, came {array.shape}.")
    blocks = [slice(i, i + _BLOCK) for i in range(0, len(array), _BLOCK)]
    for block in blocks:
        bad = np.argwhere(~np.isfinite(array[block]))
        if len(bad):
            row, column = bad[0][0] + block.start, bad[0][1]
            came = f"{array[row, column]} in row {row}, column {column}"
            raise BadInputError(f"statistics of {name}: expected finite numbers, came {came}.")
    mean = np.sum([array[b].sum(axis=0, dtype=np.float64) for b in blocks], axis=0) / len(array)
    squares = np.sum([((array[b].astype(np.float64) - mean) ** 2).sum(axis=0) for b in blocks], axis=0)
    std = np.sqrt(squares / len(array))
    rounding = 1e-12 * np.abs(array).max(axis=0)
    return Statistics(mean, np.where(std > rounding, std, 1.0))
