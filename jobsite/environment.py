"""Reading the environment: NAME or NAME_FILE, refused with the variable's name where it is empty or wrong."""

import ipaddress
import os
from pathlib import Path

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
            return super().get_value(var, cast=cast, default=default, parse_default=parse_default)
        except (ValueError, TypeError) as wrong:
            kind = getattr(cast, "__name__", "value")
            raise ImproperlyConfigured(f"{var} is not a valid {kind}.") from wrong


env = Env()
_env_file = Path(os.environ.get("ENV_FILE") or BASE_DIR / ".env")
if _env_file.exists():
    Env.read_env(_env_file)  # what the environment says already wins
HOME = Path(env.str("JOBSITE_HOME", str(BASE_DIR / "var"))).absolute()  # database, storage, logs and the secret key


def seconds(name: str, default: float, *, least: float = 0.05) -> float:
    """A duration in seconds from the environment, at least `least`."""
    value = env.float(name, default)
    if not least <= value <= 10_000_000:  # also refuses NaN
        raise ImproperlyConfigured(f"{name} must be a number of seconds of at least {least}; it is {value}.")
    return value


def whole(name: str, default: int, *, least: int = 0) -> int:
    """A whole number from the environment, at least `least`."""
    value = env.int(name, default)
    if value < least:
        raise ImproperlyConfigured(f"{name} must be at least {least}; it is {value}.")
    return value


def networks(name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks from the environment, comma separated: `10.0.0.0/8,fd00::/8`. None unless named."""
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in env.list(name, default=[]) if text.strip())
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be networks like 10.0.0.0/8: {error}.") from error
