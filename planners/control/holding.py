"""Why the robot is held, and when that is over."""

from __future__ import annotations


class HoldCauses:
    """What is a reason to hold the robot, and for how many control steps there has been none.

    Attributes:
        operator: Reason of an operator's hold, or None; it lasts until the operator ends it.
        surprised: The last observation is one that the model finds impossible.
        outside: How far the last reading lay outside of what was foreseen [length unit]; <= 0: not at all.
        calm: Control steps in a row with a fresh observation and no cause.
    """

    def __init__(self) -> None:
        self.operator: str | None = None
        self.begin()

    def begin(self) -> None:
        """A run begins: nothing that was seen before is a cause, what the operator says is."""
        self.surprised, self.outside, self.calm = False, 0.0, 0

    def now(self, trouble: str | None, fresh: bool) -> str | None:
        """The cause at this control step, or None.

        Args:
            trouble: With the observations, or None.
            fresh: A new observation came.
        """
        cause = trouble or self.contradiction() or ("surprising observation" if self.surprised else None)
        cause = cause or (f"held by {self.operator}" if self.operator else None)
        self.calm = 0 if cause else self.calm + fresh
        return cause

    def contradiction(self) -> str | None:
        """The last reading contradicts the stated bounds, or None."""
        if self.outside <= 0:
            return None
        return f"a reading {self.outside:.2g} outside of what the stated bounds allow"
