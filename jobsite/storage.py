"""STORAGE_URL: a folder of this host, or a bucket of S3 or of a server that speaks its protocol."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_to_bytes

from django.core.exceptions import ImproperlyConfigured

from jobsite.environment import split

NEEDS = "STORAGE_URL is s3://…, which needs more packages: pip install -r requirements-s3.txt."
QUERY = {"endpoint", "public", "region"}


def folder(url: str) -> Path | None:
    """The folder that a file: URL names; None for a bucket."""
    parts = split("STORAGE_URL", url)
    if parts.scheme == "s3":
        return None
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ImproperlyConfigured("STORAGE_URL must be file:///absolute/path or s3://bucket/prefix.")
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))  # bytes: a folder's name need not be text


def backend(url: str, *, key_id: str = "", secret: str = "", token: str = "") -> dict[str, Any]:
    """Django's STORAGES["default"] for the URL. Without keys, boto3 finds its own (an instance's role, a profile).

    ImproperlyConfigured says what is wrong, and never a key.
    """
    if location := folder(url):
        options = {"location": location, "file_permissions_mode": 0o600, "directory_permissions_mode": 0o700}
        return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
    parts = split("STORAGE_URL", url)
    if "@" in parts.netloc:
        raise ImproperlyConfigured("STORAGE_URL must hold no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
        raise ImproperlyConfigured("STORAGE_URL must name a bucket: s3://bucket/prefix.")
    if bool(key_id) != bool(secret):
        raise ImproperlyConfigured("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together.")
    if not (importlib.util.find_spec("storages") and importlib.util.find_spec("boto3")):
        raise ImproperlyConfigured(NEEDS)
    given = _query(parts)
    options = {
        "bucket_name": parts.netloc,
        "location": _prefix(parts),
        "endpoint_url": given.get("endpoint"),
        "public_endpoint": given.get("public"),
        "region_name": given.get("region") or ("us-east-1" if "endpoint" in given else None),  # None: boto3's own
        **({"access_key": key_id, "secret_key": secret, "security_token": token or None} if key_id else {}),
    }
    return {"BACKEND": "jobs.s3.S3", "OPTIONS": options}


def outputs_from(storage: dict[str, Any]) -> list[str]:
    """Where a download of an output is sent on to, if not to ourselves: the bucket's host. `storage` is one of
    Django's STORAGES."""
    if not storage["BACKEND"].endswith(".S3"):
        return []
    options = storage["OPTIONS"]
    return [options["public_endpoint"] or options["endpoint_url"] or "https://*.amazonaws.com"]


def _prefix(parts: SplitResult) -> str:
    prefix = unquote(parts.path).strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise ImproperlyConfigured("STORAGE_URL must name a prefix without empty parts, . and .. in it.")
    return prefix


def _query(parts: SplitResult) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(given) - QUERY):
        raise ImproperlyConfigured(f"STORAGE_URL must not say {unknown[0]}: there are {', '.join(sorted(QUERY))}.")
    for name in QUERY & {"endpoint", "public"} & set(given):
        where = split("STORAGE_URL", given[name])
        if where.scheme not in ("http", "https") or not where.hostname or "@" in where.netloc:
            raise ImproperlyConfigured(f"STORAGE_URL must say {name} like https://s3.example.com.")
    return given
