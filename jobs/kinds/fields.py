"""Fields that take JSON numbers and nothing that merely looks like one: no text, no booleans, no NaN or infinity."""

import math
import unicodedata
from urllib.parse import unquote

from rest_framework import serializers

OWN_FOLDERS = ("jobs", "uploads", "health")  # of the platform in its storage: nobody may name a file in them


def path_problem(path: str) -> str:
    """Why this cannot be a relative path of a file below some folder, as a sentence; empty if it can.

    Judged by its text alone, written plainly and with `%2e` and the like read as what they stand for (FAULTS S31).
    """
    for text in (path, unquote(path)):
        if any(unicodedata.category(character)[0] == "C" for character in text):
            return "Must not contain control characters."
        if "\\" in text or any(part in ("", ".", "..") for part in text.split("/")):
            return "Must be a relative path without empty parts, . and .. in it."
    return ""


def key_problem(key: str, prefix: str) -> str:
    """Why a kind may not read this key of the storage, as a sentence; empty if it may. `prefix` is INGEST_PREFIX."""
    if problem := path_problem(key):
        return problem
    if not key.startswith(prefix):
        return f"Must begin with {prefix}."
    if unquote(key).partition("/")[0] in OWN_FOLDERS:
        return f"Must not lie in {', '.join(OWN_FOLDERS)}: they are the platform's own."
    return ""


class NumberField(serializers.FloatField):
    """A finite number. DRF's own also takes "1_0", true and NaN, and NaN passes every minimum and maximum."""

    def to_internal_value(self, data):
        if isinstance(data, bool) or not isinstance(data, (int, float)) or not -1e15 < data < 1e15:
            self.fail("invalid")
        return float(data)


class WholeField(serializers.IntegerField):
    """A whole number; 24.0 is one."""

    def to_internal_value(self, data):
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.fail("invalid")
        if not math.isfinite(data) or data != int(data):
            self.fail("invalid")
        return int(data)


class EvenField(WholeField):
    """A picture's width or height: H.264 stores colour for 2x2 pixels."""

    default_error_messages = {"odd": "Must be even."}

    def to_internal_value(self, data):
        value = super().to_internal_value(data)
        if value % 2:
            self.fail("odd")
        return value


class TextField(serializers.CharField):
    """Text of one or more lines without control characters."""

    default_error_messages = {"control": "Must not contain control characters other than line breaks."}

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        value = super().to_internal_value(data.replace("\r\n", "\n"))
        if any(unicodedata.category(character) in ("Cc", "Cs") and character != "\n" for character in value):
            self.fail("control")
        return value
