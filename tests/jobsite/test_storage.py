"""What STORAGE_URL may say, and what it must not."""

import importlib.util
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from jobsite import storage

KEYS = {"key_id": "AKIAEXAMPLE", "secret": "hush-hush"}


def test_a_folder():
    found = storage.backend("file:///srv/a%20b")
    assert found["BACKEND"] == "django.core.files.storage.FileSystemStorage"
    assert found["OPTIONS"]["location"] == Path("/srv/a b")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://films", {"bucket_name": "films", "location": "", "endpoint_url": None, "region_name": None}),
        ("s3://films/a/b/?region=eu-central-1", {"location": "a/b", "region_name": "eu-central-1"}),
        ("s3://films?endpoint=http://minio:9000", {"endpoint_url": "http://minio:9000", "region_name": "us-east-1"}),
        (
            "s3://films?endpoint=http://minio:9000&public=https://files.example.com",
            {"public_endpoint": "https://files.example.com"},
        ),
    ],
)
def test_a_bucket(url, wanted):
    found = storage.backend(url, **KEYS)
    assert found["BACKEND"] == "jobs.s3.S3"
    assert found["OPTIONS"] | wanted == found["OPTIONS"]
    assert (found["OPTIONS"]["access_key"], found["OPTIONS"]["secret_key"]) == ("AKIAEXAMPLE", "hush-hush")
    assert "access_key" not in storage.backend(url)["OPTIONS"]  # boto3 looks for a role or a profile


@pytest.mark.parametrize(
    "url",
    [
        "s3://Films",
        "s3://f",
        "s3:///prefix",
        "s3://AKIA:hush-hush@films",
        "s3://films/a//x",
        "s3://films/%2e%2e/x",
        "s3://films?secret=hush-hush",
        "s3://films?endpoint=ftp://minio",
        "s3://films?endpoint=http://AKIA:hush-hush@minio",
        "gs://films",
        "films",
    ],
)
def test_what_it_must_not_say_is_named_without_any_secret(url):
    with pytest.raises(ImproperlyConfigured, match=r"^STORAGE_URL must") as refused:
        storage.backend(url, **KEYS)
    assert "hush" not in str(refused.value)


def test_without_its_packages_one_sentence_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "boto3" else find(name))
    with pytest.raises(ImproperlyConfigured, match=r"pip install -r requirements-s3\.txt"):
        storage.backend("s3://films")
