"""Reading the environment: NAME or NAME_FILE, refused with the variable's name where it is empty or wrong."""

import io
import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from environ.fileaware_mapping import FileAwareMapping

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(FileAwareMapping):
    """The process's environment, where NAME_FILE names a file that holds NAME's value and wins over NAME."""

    def __getitem__(self, name: str) -> str:
        if self.env.get(f"{name}_FILE") == "":
            raise ImproperlyConfigured(f"{name}_FILE is set but empty; give it a path or unset it.")
        try:
            return super().__getitem__(name).strip()  # a file ends with a newline
        except (OSError, UnicodeDecodeError) as wrong:
            raise ImproperlyConfigured(f"{name}_FILE cannot be read: {wrong}.") from wrong


class Env(environ.Env):
    """django-environ that also reads NAME_FILE, and refuses what is empty or unreadable, naming the variable."""

    ENVIRON = Environment()
    BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

    def get_value(self, var, cast=None, default=environ.Env.NOTSET, parse_default=False):
        if var in self.ENVIRON and not self.ENVIRON[var] and default != "":
            raise ImproperlyConfigured(f"{var} is set but empty; give it a value or unset it.")
        if cast is bool and var in self.ENVIRON:
            word = self.ENVIRON[var].lower()
            if word not in self.BOOLEANS:
                raise ImproperlyConfigured(f"{var} must be one of {', '.join(self.BOOLEANS)}; it is {word[:40]!r}.")
            return self.BOOLEANS[word]
        try:
            if var in self.ENVIRON and cast is float:
                return float(self.ENVIRON[var])  # django-environ drops what is no digit: 1e3 would be 13, 2h 2 seconds
            if var in self.ENVIRON and self.ENVIRON[var].startswith("$"):
                return self.parse_value(self.ENVIRON[var], cast)  # it would look for a variable of that name
            return super().get_value(var, cast=cast, default=default, parse_default=parse_default)
        except (ValueError, TypeError) as wrong:
            kind = getattr(cast, "__name__", "value")
            raise ImproperlyConfigured(f"{var} is not a valid {kind}.") from wrong


env = Env()


def _read_file(file: Path) -> None:
    """Lines of NAME=value; what the environment says already wins. Refused where one would be passed over."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise ImproperlyConfigured(f"{file} cannot be read: {wrong}.") from wrong
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and not re.match(r"(export )?\w+=", line):
            raise ImproperlyConfigured(f"{file}, line {number}, must be NAME=value, without spaces around the =.")
    Env.read_env(io.StringIO(text))


if os.environ.get("ENV_FILE"):
    _read_file(Path(os.environ["ENV_FILE"]))  # without it all would run, with other settings
elif (BASE_DIR / ".env").exists():
    _read_file(BASE_DIR / ".env")
HOME = Path(env.str("JOBSITE_HOME", str(BASE_DIR / "var"))).absolute()  # database, storage, logs and the secret key


def made(folder: Path, mode: int = 0o777) -> Path:
    """A folder below JOBSITE_HOME (or that itself), which is made unless it is there."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as wrong:
        raise ImproperlyConfigured(f"JOBSITE_HOME cannot be used: {wrong}.") from wrong
    return folder


def split(name: str, url: str) -> SplitResult:
    """The parts of a URL that the setting `name` holds. What cannot be read is not repeated: it may be a password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read only now
    except ValueError:
        raise unreadable(name) from None
    return parts


def unreadable(name: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} is no URL that can be read; write / ? # [ ] @ in a password as %2F and so on.")


def seconds(name: str, default: float, *, least: float = 0.05) -> float:
    """A duration in seconds from the environment, at least `least`."""
    value = env.float(name, default)
    if not least <= value <= 10_000_000:  # also refuses NaN
        raise ImproperlyConfigured(f"{name} must be a number of seconds of at least {least}; it is {value}.")
    return value


def whole(name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
    """A whole number from the environment, at least `least` and at most `most`."""
    value = env.int(name, default)
    if value < least:
        raise ImproperlyConfigured(f"{name} must be at least {least}; it is {value}.")
    if most is not None and value > most:
        raise ImproperlyConfigured(f"{name} must be at most {most}; it is {value}.")
    return value


def networks(name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks from the environment, comma separated: `10.0.0.0/8,fd00::/8`. None unless named."""
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in env.list(name, default=[]) if text.strip())
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be networks like 10.0.0.0/8: {error}.") from error
