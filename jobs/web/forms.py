"""A form out of a kind's `Params`: a new kind gets its page with no line of HTML.

What is typed stays text until the kind's own serializer judges it, so that the page and the API refuse the same things
in the same words, and everything typed is still there beside its error.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict
from django.utils.formats import number_format
from rest_framework import serializers
from rest_framework.fields import empty

from jobs.kinds.base import InputField, Kind

AREA_FROM = 200  # characters: longer texts get several lines
NUMBERS = (serializers.IntegerField, serializers.FloatField, serializers.DecimalField)


@dataclass
class Field:
    """One param on the page. `control` says how it looks; `value` is what was typed, `chosen` the files of a list."""

    name: str
    label: str
    control: str  # text, area, number, check, select, file, files, lines, json
    help: str = ""
    required: bool = False
    value: Any = ""
    attributes: dict[str, Any] = field(default_factory=dict)  # min, max, step, maxlength
    choices: list[tuple[str, str]] = field(default_factory=list)
    accepts: tuple[str, ...] = ()
    chosen: list[tuple[str, str]] = field(default_factory=list)  # (reference, what to call it)
    errors: list[str] = field(default_factory=list)

    @property
    def wide(self) -> bool:
        return self.control in ("area", "file", "files", "lines", "json")

    @property
    def pick(self) -> str:
        """What the browser's file dialog offers."""
        return ",".join(kind if "/" in kind else f"{kind}/*" for kind in self.accepts)

    @property
    def described(self) -> str:
        """ids of what explains this control, for screen readers."""
        parts = [f"{self.name}-help"] if self.help else []
        return " ".join(parts + ([f"{self.name}-error"] if self.errors else []))


def fields(kind: Kind, *, operator: bool) -> list[Field]:
    """The kind's params as empty fields with their defaults; what only operators may set is left out for others, and
    what is needed without it is required."""
    made = of(kind.Params())
    if operator:
        return made
    bare = kind.Params(data=kind.fixed)
    bare.is_valid()
    made = [one for one in made if one.name not in {*kind.for_operators, *kind.fixed}]
    for one in made:
        one.required |= one.name in bare.errors
    return made


def of(serializer: serializers.Serializer) -> list[Field]:
    """A serializer's fields, empty with their defaults."""
    return [_field(name, param) for name, param in serializer.fields.items()]


def _field(name: str, param: serializers.Field) -> Field:
    child = getattr(param, "child", None)
    if isinstance(param, InputField):
        control, accepts = "file", param.accepts
    elif isinstance(child, InputField):
        control, accepts = "files", child.accepts
    else:
        control, accepts = _plain_control(param, child), ()
    bounds = {"min": getattr(param, "min_value", None), "max": getattr(param, "max_value", None)}
    attributes = {key: value for key, value in bounds.items() if value is not None}
    if control == "number":
        attributes["step"] = 1 if isinstance(param, serializers.IntegerField) else "any"
    if control in ("text", "area") and getattr(param, "max_length", None):
        attributes["maxlength"] = param.max_length
    choices = [(str(value), str(label)) for value, label in getattr(param, "choices", {}).items()]
    made = Field(
        name,
        str(param.label),
        control,
        help=" ".join(filter(None, [str(param.help_text or ""), _range(attributes), _count(param, control)])),
        required=param.required,
        attributes=attributes,
        choices=choices,
        accepts=accepts,
    )
    if param.default is not empty:
        fill(made, param.default)
    return made


def _plain_control(param: serializers.Field, child: serializers.Field | None) -> str:
    match param:
        case serializers.ChoiceField():
            return "select"
        case serializers.BooleanField():
            return "check"
        case _ if isinstance(param, NUMBERS):
            return "number"
        case serializers.CharField():
            return "area" if (param.max_length or 0) > AREA_FROM else "text"
        case serializers.ListField() if isinstance(child, serializers.CharField):
            return "lines"
    return "json"


def _range(attributes: dict[str, Any]) -> str:
    low, high = (None if (bound := attributes.get(key)) is None else number_format(bound) for key in ("min", "max"))
    if low and high:
        return f"{low} to {high}."
    return f"At least {low}." if low else f"At most {high}." if high else ""


def _count(param: serializers.Field, control: str) -> str:
    if control != "files":
        return ""
    low, high = getattr(param, "min_length", None), getattr(param, "max_length", None)
    return f"{low or 0} to {high} files, in this order." if high else ""


def fill(made: Field, value: Any) -> None:
    """Show a param's value, as if it had been typed."""
    match made.control:
        case "files" | "lines" if not isinstance(value, list):
            pass  # an imported job's: another system may have taken anything
        case "files":
            made.chosen = [(str(reference), str(reference)) for reference in value]
        case "lines":
            made.value = "\n".join(map(str, value))
        case "json":
            made.value = json.dumps(value)
        case "check":
            made.value = bool(value)
        case _:
            made.value = str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def fill_all(made: Iterable[Field], params: dict[str, Any]) -> None:
    """Show the params of an earlier job."""
    for one in made:
        if one.name in params:
            fill(one, params[one.name])


def read(made: Iterable[Field], data: QueryDict) -> None:
    """Keep what was typed in the fields."""
    for one in made:
        if one.control == "files":
            one.chosen = [(reference, reference) for reference in data.getlist(one.name)]
        else:
            one.value = data.get(one.name, "")


def params(made: Iterable[Field]) -> dict[str, Any]:
    """What the fields hold as params, for the kind's serializer to judge; what was left empty is left out."""
    found = {}
    for one in made:
        value = [reference for reference, _ in one.chosen] if one.control == "files" else _typed(one)
        if value not in ("", []):
            found[one.name] = value
    return found


def _typed(one: Field) -> Any:
    """Text as JSON would have it; what does not look like its type stays text, and is refused as that."""
    text = one.value
    match one.control:
        case "check":
            return bool(text)
        case "number":
            plain = text.strip().replace(",", ".") if text.count(",") == 1 and "." not in text else text.strip()
            if re.fullmatch(r"-?[0-9]{1,18}", plain):
                return int(plain)
            return float(plain) if re.fullmatch(r"-?[0-9]{0,18}\.[0-9]{1,18}", plain) else plain
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "json":
            try:
                return json.loads(text) if text.strip() else ""
            except (ValueError, RecursionError):
                return text
    return text


def tell(made: Iterable[Field], wrong: Iterable[tuple[str, str, str]]) -> list[str]:
    """Put (name, code, detail) of what was wrong at its field; names are as the API's. Returns what fits to none."""
    known, left = {one.name: one for one in made}, []
    for name, _, detail in wrong:
        first, _, rest = name.removeprefix("params").removeprefix(".").partition(".")
        if first in known:
            number = f"File {int(rest) + 1}: " if rest.isdecimal() and known[first].control == "files" else ""
            known[first].errors.append(f"{number}{detail}")
        else:
            left.append(f"{first}: {detail}" if first else detail)
    return left
