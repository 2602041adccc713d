"""The grammar of what clients send: ids, numbers, booleans, queries, JSON (contract, preamble and section 6).

Both ports read their input through here, so that a number or an id means the same wherever it stands. Everything raises the
`PsubdError` that names the field and what to do; nothing here knows a route.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from psubd.errors import BadBody, BadParameter, PsubdError

T = TypeVar("T")

APPLICATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
TOPIC_ID = re.compile(r"(?!\.{1,2}\Z)(?!__)[A-Za-z0-9._-]{1,200}")
GROUP_NAME = TOPIC_ID
INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)

JSON_DEPTH = 64
"""Contract, section 6."""

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
_LONE_SURROGATE = re.compile(rb"\\u[dD][89aAbB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89aAbB][0-9a-fA-F]{2})\\u[dD][c-fC-F]")
INT64 = 2**63 - 1

# What a JSON body's text must match, where a shape names it (`msgspec.Meta`). `$` in Python also matches before a final line feed; the
# look-ahead takes that away, and changes nothing where JSON Schema's dialect reads the pattern.
APPLICATION_PATTERN = r"^[A-Za-z0-9_-]{1,64}$(?!\n)"
TOPIC_PATTERN = r"^(?!\.{1,2}$)(?!__)[A-Za-z0-9._-]{1,200}$(?!\n)"
LABEL_PATTERN = r"^[^\x00-\x1f\x7f]{1,200}$(?!\n)"
WORDS = {
    APPLICATION_PATTERN: "Expected an id of 1 to 64 of A-Z a-z 0-9 _ -",
    TOPIC_PATTERN: "Expected an id of 1 to 200 of A-Z a-z 0-9 . _ -, not . or .., not beginning with __",
    LABEL_PATTERN: "Expected a text of 1 to 200 characters, none of them a control character",
}
"""What a refusal says instead of the pattern."""

_MISMATCH = re.compile(r"Expected `str` matching regex (?P<pattern>'.*')(?P<where>.*)", re.DOTALL)


def application_id(text: str) -> bool:
    """Whether ``text`` is an application id."""
    return APPLICATION_ID.fullmatch(text) is not None


def topic_id(text: str) -> bool:
    """Whether ``text`` is a topic id (also: a group's name as a client writes it)."""
    return TOPIC_ID.fullmatch(text) is not None


def integer(text: str, name: str, low: int, high: int, error: type[PsubdError] = BadParameter) -> int:
    """``text`` as a number from ``low`` to ``high``, both allowed.

    :raises PsubdError: ``error``, naming ``name`` and the range.
    """
    if INTEGER.fullmatch(text) is None:
        raise error(f"{name}: {text[:40]!r} is not a number; send ASCII digits, {low} to {high}")
    number = int(text)
    if not low <= number <= high:
        raise error(f"{name}: {number} is out of range; send {low} to {high}")
    return number


def boolean(text: str, name: str, error: type[PsubdError] = BadParameter) -> bool:
    """``true`` or ``false``, as written."""
    if text == "true":
        return True
    if text == "false":
        return False
    raise error(f"{name}: {text[:40]!r} is not a boolean; send true or false")


def choice(text: str, name: str, choices: Iterable[str], error: type[PsubdError] = BadParameter) -> str:
    """``text`` if it is one of ``choices``."""
    choices = tuple(choices)
    if text in choices:
        return text
    raise error(f"{name}: {text[:40]!r} is none of {', '.join(choices)}")


def decode_component(raw: bytes, *, plus: bool = False) -> str:
    """One percent-decoded part of a target. :raises UnicodeDecodeError: for bytes that are not UTF-8."""
    return unquote_to_bytes(raw.replace(b"+", b" ") if plus else raw).decode("utf-8")


def query(raw: bytes, known: Mapping[str, bool]) -> dict[str, list[str]]:
    """The query of a target, each parameter with its values in order.

    :param known: the parameters that the route takes; the value tells whether one may be repeated.
    :raises BadParameter: for an unknown one, a repeated one, one that is not UTF-8, or a control character.
    """
    values: dict[str, list[str]] = {}
    if not raw:
        return values
    for part in raw.split(b"&"):
        if not part:
            continue
        name_raw, _, value_raw = part.partition(b"=")
        try:
            name, value = decode_component(name_raw, plus=True), decode_component(value_raw, plus=True)
        except UnicodeDecodeError:
            raise BadParameter("the query is not UTF-8; percent-encode UTF-8 bytes") from None
        if name not in known:
            takes = ", ".join(known) or "none"
            raise BadParameter(f"unknown query parameter {name[:40]!r}; this route takes: {takes}")
        if "\0" in value:
            raise BadParameter(f"{name}: NUL is not allowed")
        if name in values and not known[name]:
            raise BadParameter(f"{name}: sent twice; send it once")
        values.setdefault(name, []).append(value)
    return values


def check_depth(body: bytes, error: type[PsubdError] = BadBody) -> None:
    """Refuse JSON that nests deeper than `JSON_DEPTH`, before a parser recurses into it."""
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(body):
        token = found.group()
        if token in (b"[", b"{"):
            depth += 1
            if depth > JSON_DEPTH:
                raise error(f"the JSON nests deeper than {JSON_DEPTH}")
        elif token in (b"]", b"}"):
            depth -= 1


def json_body(body: bytes, shape: type[T], error: type[PsubdError] = BadBody) -> T:
    """A JSON body as a value of ``shape`` (a `msgspec.Struct` that forbids unknown fields, usually).

    :raises PsubdError: ``error``, naming the field (``$.partitions``) and what was expected.
    """
    check_depth(body, error)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as refused:
        raise error(in_words(str(refused))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise error(not_json(body, broken)) from None


def not_json(body: bytes, broken: Exception) -> str:
    """What to say of a body that the parser refused. Of half a surrogate pair it says anything, as that the input was cut off."""
    if _LONE_SURROGATE.search(body) is not None:
        return "not JSON in UTF-8: half of a surrogate pair (an escape from \\ud800 to \\udfff without its partner) is no text; send both, or none"
    return f"not JSON in UTF-8: {broken}"


def in_words(refusal: str) -> str:
    """msgspec's refusal, with a pattern of `WORDS` said in words: nobody should have to read a regular expression."""
    found = _MISMATCH.fullmatch(refusal)
    if found is None:
        return refusal
    for pattern, words in WORDS.items():
        if repr(pattern) == found["pattern"]:
            return words + found["where"]
    return refusal


def json_bytes(value: Any) -> bytes:
    """``value`` as compact JSON in UTF-8."""
    return msgspec.json.encode(value)
