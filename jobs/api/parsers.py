"""JSON as it is meant: what Python's parser lets through and a database or a price would choke on is refused."""

import json
from typing import Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

MOST_BYTES = 1024 * 1024
LARGEST = 2**63 - 1  # of an integer: what databases hold
DEEPEST = 32  # levels of lists and objects


class TooLarge(APIException):
    status_code = 413
    default_detail = "The body is larger than allowed."


class StrictJSONParser(BaseParser):
    """One JSON object of at most 1 MiB, valid UTF-8, without NaN, infinities, doubled names, NUL or deep nesting."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None) -> dict[str, Any]:
        body = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise TooLarge(f"A JSON body may have {MOST_BYTES} bytes.")
        return parse(body)


class AnyTypeJSONParser(StrictJSONParser):
    """The same whatever Content-Type came with it: `curl -d` without a header says that it is a form."""

    media_type = "*/*"


def parse(body: bytes) -> dict[str, Any]:
    """The object in `body`; an empty body is an empty object. ParseError says what is wrong."""
    if not body.strip():
        return {}
    try:
        data = json.loads(
            body.decode("utf-8"),
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ParseError("The JSON is nested too deeply.") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise ParseError(f"The body is not valid JSON: {error}"[:300]) from error
    if not isinstance(data, dict):
        raise ParseError("The body must be a JSON object.")
    _check(data, DEEPEST)
    return data


def _constant(word: str):
    raise ValueError(f"{word} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -LARGEST <= (value := int(text)) <= LARGEST:
        raise ValueError("a number is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _check(value: Any, levels: int) -> None:
    if isinstance(value, str):
        if "\0" in value:  # PostgreSQL cannot hold it
            raise ParseError("Text must not contain NUL characters.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ParseError("Text must not contain half of a surrogate pair.") from error
        return
    if isinstance(value, (dict, list)):
        if not levels:
            raise ParseError("The JSON is nested too deeply.")
        for inner in value:
            _check(inner, levels - 1)
        for inner in value.values() if isinstance(value, dict) else ():
            _check(inner, levels - 1)
