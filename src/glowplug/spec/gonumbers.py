"""Numbers, truth values and durations as Go reads and writes them.

Knative takes annotation and ConfigMap values with Go's `strconv` and `time`, and repeats them in its messages. A value
is good here exactly if it is good there (`1_000` and `0x1p4` are numbers, ` 1` and `1e999` are none), and what an
error or a message says of it is what Knative would say. Source: the Go standard library, `strconv` and `time`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal

SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * SECOND_NS
_HOUR_NS = 3600 * SECOND_NS

_SYNTAX = "invalid syntax"
_RANGE = "value out of range"
_DIGITS = "[0-9](?:_?[0-9])*"
_DECIMAL = re.compile(rf"[+-]?(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?", re.ASCII)
_HEX_DIGITS = "[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_HEX = re.compile(
    rf"[+-]?0[xX](?:_?{_HEX_DIGITS}\.?(?:{_HEX_DIGITS})?|\.{_HEX_DIGITS})[pP][+-]?{_DIGITS}", re.ASCII
)
_INFINITY = re.compile(r"([+-]?)inf(?:inity)?", re.ASCII | re.IGNORECASE)
_ASCII_DIGITS = frozenset("0123456789")
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_DURATION_PART = re.compile(r"([0-9]*)(\.([0-9]*))?([^0-9.]*)", re.ASCII | re.DOTALL)
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": _MINUTE_NS,
    "h": _HOUR_NS,
}
_MAX_NS = 2**63
_EXPONENT_FROM = 6
_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    '"': '\\"', "\\": "\\\\",
}  # fmt: skip


class GoValueError(ValueError):
    """A text that Go does not take; the message is Go's. `is_range`: well written, but too large."""

    def __init__(self, message: str, *, is_range: bool = False) -> None:
        super().__init__(message)
        self.is_range = is_range


def parse_float(text: str) -> float:
    """The float64 that `strconv.ParseFloat` reads; raises GoValueError."""
    if text.lower() == "nan":
        return math.nan
    infinite = _INFINITY.fullmatch(text)
    if infinite:
        return -math.inf if infinite.group(1) == "-" else math.inf
    if _DECIMAL.fullmatch(text):
        number = float(text.replace("_", ""))
    elif _HEX.fullmatch(text):
        try:
            number = float.fromhex(text.replace("_", ""))
        except OverflowError:
            number = math.inf
    else:
        raise _bad("ParseFloat", text, _SYNTAX)
    if math.isinf(number):
        raise _bad("ParseFloat", text, _RANGE)
    return number


def parse_int(text: str, bits: int = 32) -> int:
    """The integer of `bits` bits that `strconv.ParseInt` reads in base 10; raises GoValueError."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    number = 0
    for digit in digits:
        if digit not in _ASCII_DIGITS:
            raise _bad("ParseInt", text, _SYNTAX)
        number = number * 10 + int(digit)
        if number >= 2**bits:
            # Go stops here: it does not see what is wrong behind the digit that is too much.
            raise _bad("ParseInt", text, _RANGE)
    if not digits:
        raise _bad("ParseInt", text, _SYNTAX)
    number = -number if text.startswith("-") else number
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise _bad("ParseInt", text, _RANGE)
    return number


def parse_bool(text: str) -> bool:
    """The truth value that `strconv.ParseBool` reads; raises GoValueError."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _bad("ParseBool", text, _SYNTAX)


def parse_duration(text: str) -> int:
    """The nanoseconds that `time.ParseDuration` reads (`1h30m`, `-1.5s`, `0`); raises GoValueError."""
    is_negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        assert part is not None, "every part of the pattern may be empty"
        total += _part_ns(text, part)
        if total > _MAX_NS:
            raise _bad_duration("invalid duration", text)
        position = part.end()
    if not rest or (total == _MAX_NS and not is_negative):
        raise _bad_duration("invalid duration", text)
    return -total if is_negative else total


def _part_ns(text: str, part: re.Match[str]) -> int:
    """One number with its unit; Go computes the fraction in floating point, and cuts it off."""
    whole, dot, fraction, unit = part.group(1), part.group(2), part.group(3) or "", part.group(4)
    if not whole and not fraction:
        raise _bad_duration("invalid duration", text)
    number = int(whole or "0") if len(whole.lstrip("0")) <= 19 else 2**64
    if number > _MAX_NS:
        raise _bad_duration("invalid duration", text)
    if not unit:
        raise _bad_duration("missing unit in duration", text)
    if unit not in _UNIT_NS:
        raise _bad_duration(f"unknown unit {_time_quoted(unit)} in duration", text)
    unit_ns = _UNIT_NS[unit]
    if number > _MAX_NS // unit_ns:
        raise _bad_duration("invalid duration", text)
    found = number * unit_ns
    if dot and fraction:
        numerator, denominator = _leading_fraction(fraction)
        found += int(float(numerator) * (float(unit_ns) / denominator))
    if found > _MAX_NS:
        raise _bad_duration("invalid duration", text)
    return found


def _leading_fraction(digits: str) -> tuple[int, float]:
    """The digits as numerator and denominator; those beyond 63 bits are left out."""
    value, scale = 0, 1.0
    for digit in digits:
        if value > (2**63 - 1) // 10 or value * 10 + int(digit) > 2**63:
            break
        value = value * 10 + int(digit)
        scale *= 10
    return value, scale


def float_text(number: float) -> str:
    """A float64 as Go's `%v` prints it: `0.01`, `1e+06`, `NaN`, `+Inf`."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int), "only NaN and infinities have none"
    text = "".join(map(str, digits)).lstrip("0")
    exponent += len(text)  # the number is 0.text times ten to this power
    text = text.rstrip("0")
    lead = "-" if sign else ""
    if not text:
        return lead + "0"
    power = exponent - 1
    if power < -4 or power >= _EXPONENT_FROM:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        return f"{lead}{text[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if exponent <= 0:
        return f"{lead}0.{'0' * -exponent}{text}"
    if len(text) <= exponent:
        return lead + text + "0" * (exponent - len(text))
    return f"{lead}{text[:exponent]}.{text[exponent:]}"


def fixed_text(number: float) -> str:
    """A float64 as Go's `%f` prints it: six digits after the point."""
    return f"{number:.6f}" if math.isfinite(number) else float_text(number)


def duration_text(duration_ns: int) -> str:
    """A duration as Go prints it: `1h0m0s`, `1.5s`, `0s`, `2ms`."""
    lead, rest = ("-" if duration_ns < 0 else ""), abs(duration_ns)
    if rest < SECOND_NS:
        for unit, name in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if rest >= unit:
                return f"{lead}{_with_fraction(rest, unit)}{name}"
        return "0s"
    hours, rest = divmod(rest, _HOUR_NS)
    minutes, rest = divmod(rest, _MINUTE_NS)
    seconds = f"{_with_fraction(rest, SECOND_NS)}s"
    if hours:
        return f"{lead}{hours}h{minutes}m{seconds}"
    return f"{lead}{minutes}m{seconds}" if minutes else lead + seconds


def _with_fraction(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    fraction = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def quoted(text: str) -> str:
    """The text as Go's `%q` prints it."""
    return '"' + "".join(_ESCAPES.get(char) or _quoted_char(char) for char in text) + '"'


def _quoted_char(char: str) -> str:
    code = ord(char)
    if char == " " or unicodedata.category(char)[0] in "LMNPS":
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _time_quoted(text: str) -> str:
    """As package `time` quotes: bytes that are no printable ASCII are written in hexadecimal."""
    return '"' + "".join(_time_quoted_char(char) for char in text) + '"'


def _time_quoted_char(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if " " <= char < "\x80":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "replace"))


def _bad(function: str, text: str, why: str) -> GoValueError:
    return GoValueError(f"strconv.{function}: parsing {quoted(text)}: {why}", is_range=why == _RANGE)


def _bad_duration(why: str, text: str) -> GoValueError:
    return GoValueError(f"time: {why} {_time_quoted(text)}")
