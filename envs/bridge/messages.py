"""The bridge's messages: which there are, what is in them, and nothing else.

A message is a msgpack map with the keys ``version``, ``type``, ``id`` and those of its class below, all of them and no
other; one that has a default there may be left out, and is left out where it is the default. Every value is checked
for type, length and range, on the way out as on the way in; NaN and infinity are refused everywhere. There are no
msgpack extensions, and nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import msgpack

from wm.errors import BadInputError

VERSION = 1
MAX_REQUEST_BYTES = 4096
MAX_REPLY_BYTES = 4 * 1024 * 1024
_MAX_SIDE, _MAX_NUMBERS, _MAX_CONTAINERS, _MAX_TEXT, _MAX_INT, _MAX_NUMBER = 1024, 64, 32, 512, 2**63 - 1, 1e12

Check = Callable[[str, Any], Any]
"""``check(where, value)`` returns the value in its plain form or raises `BadInputError`."""


def _refused(where: str, expected: str, came: Any) -> BadInputError:
    text = repr(came) if isinstance(came, (bool, int, float, type(None))) else type(came).__name__
    return BadInputError(f"bridge message, {where}: expected {expected}, came {text[:60]}.")


def integer(low: int, high: int = _MAX_INT) -> Check:
    """A whole number in [low, high]."""

    def check(where: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _refused(where, f"a whole number in [{low}, {high}]", value)
        return value

    return check


def number(low: float = -_MAX_NUMBER, high: float = _MAX_NUMBER) -> Check:
    """A finite number in [low, high]; a whole one becomes a float."""

    def check(where: str, value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:  # NaN compares false
            raise _refused(where, f"a finite number in [{low:g}, {high:g}]", value)
        return float(value)

    return check


def text(where: str, value: Any) -> str:
    """At most 512 characters."""
    if type(value) is not str or len(value) > _MAX_TEXT:
        raise _refused(where, f"a text of at most {_MAX_TEXT} characters", value)
    return value


def raw(where: str, value: Any) -> bytes:
    """Bytes, at most a reply's worth."""
    if type(value) is not bytes or len(value) > MAX_REPLY_BYTES:
        raise _refused(where, f"at most {MAX_REPLY_BYTES} bytes", value)
    return value


def truth(where: str, value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise _refused(where, "true or false", value)
    return value


def several(each: Check) -> Check:
    """1 to 64 values of one kind, as a tuple."""

    def check(where: str, value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or not 1 <= len(value) <= _MAX_NUMBERS:
            raise _refused(where, f"1 to {_MAX_NUMBERS} values", value)
        return tuple(each(f"{where}[{i}]", item) for i, item in enumerate(value))

    return check


def perhaps(inner: Check) -> Check:
    """That, or nil."""
    return lambda where, value: None if value is None else inner(where, value)


def record(optional: Mapping[str, Check] | None = None, /, **needed: Check) -> Check:
    """A map with exactly these keys; an optional one is left out where its value is nil."""
    checks = {**needed, **(optional or {})}

    def check(where: str, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _refused(where, f"a map of {sorted(checks)}", value)
        given = {key: item for key, item in value.items() if item is not None or key in needed or key not in checks}
        if not set(needed) <= set(given) <= set(checks):
            extra = sorted(str(key)[:30] for key in set(given) - set(checks))
            raise BadInputError(
                f"bridge message, {where}: missing {sorted(set(needed) - set(given))}, unknown {extra[:8]}."
            )
        return {key: each(f"{where}.{key}", given[key]) for key, each in checks.items() if key in given}

    return check


_PROPRIO = record(names=several(text), units=several(text))
_POSITIVE = number(1e-9, 1e9)


@dataclass(frozen=True)
class Message:
    """Anything that is sent; a reply carries the ``id`` of its request."""

    id: int
    checks: ClassVar[dict[str, Check]] = {}


@dataclass(frozen=True)
class Describe(Message):
    """What robot is this? Anyone may ask."""


@dataclass(frozen=True)
class Command(Message):
    """Make this connection the commanding one; refused while another commands.

    Attributes:
        owner: A number that the client chose at random; a `Stop` that says the same is the commander's own.
    """

    owner: int | None = None
    checks: ClassVar[dict[str, Check]] = {"owner": perhaps(integer(1))}


@dataclass(frozen=True)
class Observe(Message):
    """The newest reading, please. Anyone may ask."""


@dataclass(frozen=True)
class Act(Message):
    """Hold an action for one control period; from the commanding connection only.

    Attributes:
        action: ``(A / F,)`` raw units.
    """

    action: tuple[float, ...]
    checks: ClassVar[dict[str, Check]] = {"action": several(number(-1e9, 1e9))}


@dataclass(frozen=True)
class Stop(Message):
    """Brake, and refuse actions until a reset. From anyone, by TCP or as one UDP datagram.

    Attributes:
        owner: See `Command`.
    """

    owner: int | None = None
    checks: ClassVar[dict[str, Check]] = {"owner": perhaps(integer(1))}


@dataclass(frozen=True)
class Standby(Message):
    """As its first request: this connection is there to stop the robot. Room is made for it, it may be silent for ever,
    and from then on it may ask for nothing but `Describe` and `Stop`."""


@dataclass(frozen=True)
class Reset(Message):
    """Allow actions again after a stop; from the commanding connection only.

    Attributes:
        force: Also after a stop that was not a commander's own, see `wm.envs.bridge.guard.Guard`.
    """

    force: bool = False
    checks: ClassVar[dict[str, Check]] = {"force": truth}


@dataclass(frozen=True)
class Release(Message):
    """Brake, and give up commanding, without a latch."""


@dataclass(frozen=True)
class Described(Message):
    """Reply to `Describe`: the robot's specifications as plain maps.

    Attributes:
        observation: `wm.robot.ObservationSpec`.
        action: `wm.specs.ActionSpec`.
        kinematics: `wm.kinematics.PointKinematics`, or None.
        deadman_s: The robot brakes when no valid action came for this long. [s]
    """

    observation: dict[str, Any]
    action: dict[str, Any]
    kinematics: dict[str, Any] | None
    deadman_s: float
    checks: ClassVar[dict[str, Check]] = {
        "observation": record(image_size=integer(1, _MAX_SIDE), proprio=perhaps(_PROPRIO)),
        "action": record(
            {"segment": _POSITIVE},
            names=several(text),
            unit=text,
            low=several(number()),
            high=several(number()),
            control_hz=_POSITIVE,
        ),
        "kinematics": perhaps(
            record(kp=number(), kv=number(), dt=_POSITIVE, substeps=integer(1, 10**6), scale=_POSITIVE, relative=truth)
        ),
        "deadman_s": _POSITIVE,
    }


@dataclass(frozen=True)
class Reading(Message):
    """Reply to `Observe`.

    Attributes:
        clock: The server's monotonic time when it answered. [s]
        stamp: When the reading was measured, same clock. [s]
        sequence: Number of the reading.
        side: Side of the picture, pixels.
        image: ``side * side * 3`` bytes, RGB row by row.
        proprio: ``(P,)`` raw units, or None.
    """

    clock: float
    stamp: float
    sequence: int
    side: int
    image: bytes
    proprio: tuple[float, ...] | None
    checks: ClassVar[dict[str, Check]] = {
        "clock": number(),
        "stamp": number(),
        "sequence": integer(0),
        "side": integer(1, _MAX_SIDE),
        "image": raw,
        "proprio": perhaps(several(number())),
    }


@dataclass(frozen=True)
class Sent(Message):
    """Reply to `Act`: what the robot received, ``(A / F,)`` raw units."""

    action: tuple[float, ...]
    checks: ClassVar[dict[str, Check]] = {"action": several(number(-1e9, 1e9))}


@dataclass(frozen=True)
class Done(Message):
    """Reply to `Command`, `Stop`, `Standby`, `Reset` and `Release`: it has been done."""


@dataclass(frozen=True)
class Refused(Message):
    """Reply to anything: it has not been done, and why."""

    reason: str
    checks: ClassVar[dict[str, Check]] = {"reason": text}


MessageT = TypeVar("MessageT", bound=Message)
REQUESTS: tuple[type[Message], ...] = (Describe, Command, Observe, Act, Stop, Reset, Release)
FIRST_REQUESTS: tuple[type[Message], ...] = (*REQUESTS, Standby)
STOPPER_REQUESTS: tuple[type[Message], ...] = (Describe, Stop)
"""What may come from a connection that stands by."""
REPLIES: tuple[type[Message], ...] = (Described, Reading, Sent, Done, Refused)


def refusal(request_id: int, reason: object) -> Refused:
    """A `Refused` whose reason is cut to what a message may carry."""
    return Refused(request_id, str(reason)[:_MAX_TEXT])


def pack(message: Message) -> bytes:
    """One message as msgpack.

    Raises:
        BadInputError: a value is not what the message may carry.
    """
    kind = type(message)
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    defaults = _defaults(kind)
    fields = {key: v for key, v in _checked(kind, values).items() if key not in defaults or v != defaults[key]}
    return msgpack.packb({"version": VERSION, "type": kind.__name__.lower(), **fields}, use_bin_type=True)


def unpack(data: bytes, kinds: Sequence[type[MessageT]]) -> MessageT:
    """One message from msgpack; the length of ``data`` was limited by whoever received it.

    Args:
        data: What came.
        kinds: The messages that may come here.

    Raises:
        BadInputError: anything else came, byte for byte.
    """
    content = _unpacked(data)
    version, name = content.pop("version", None), content.pop("type", None)
    if type(version) is not int or version != VERSION:
        raise _refused("version", str(VERSION), version)
    named = {kind.__name__.lower(): kind for kind in kinds}
    if type(name) is not str or name not in named:
        raise BadInputError(f"bridge message, type: expected one of {sorted(named)}, came {str(name)[:30]!r}.")
    return named[name](**_checked(named[name], content))


def _defaults(kind: type[Message]) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}


def _checked(kind: type[Message], values: dict[str, Any]) -> dict[str, Any]:
    fields = record(id=integer(0), **kind.checks)(kind.__name__.lower(), {**_defaults(kind), **values})
    if kind is Reading and len(fields["image"]) != 3 * fields["side"] ** 2:
        raise _refused("reading.image", f"{3 * fields['side'] ** 2} bytes", len(fields["image"]))
    return fields


def _unpacked(data: bytes) -> dict[str, Any]:
    """Plain values, in memory that is of the order of ``data`` whatever it claims or nests."""
    containers = itertools.count(1)

    def counted(content: Any) -> Any:
        if next(containers) > _MAX_CONTAINERS:
            raise ValueError(f"more than {_MAX_CONTAINERS} arrays and maps")
        return content

    try:
        content = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            list_hook=counted,
            object_pairs_hook=lambda pairs: counted(_map(pairs)),
            max_array_len=_MAX_NUMBERS,
            max_map_len=_MAX_NUMBERS,
        )
    except Exception as error:  # its readers raise half a dozen kinds of error on broken or nested input
        raise BadInputError(f"bridge message: not the msgpack expected ({type(error).__name__}: {error}).") from None
    if type(content) is not dict:
        raise BadInputError(f"bridge message: expected a map, came {type(content).__name__}.")
    return content


def _map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs) or any(type(key) is not str for key in content):
        raise ValueError("a map with a repeated key, or one that is no text")
    return content
