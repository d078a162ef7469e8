"""The OpenAPI document says what is so, and its pages come from here."""

import re

import pytest
import yaml
from django.core.management import call_command
from django.urls import get_resolver

from jobs.api import urls

pytestmark = pytest.mark.django_db


def test_it_is_valid_and_warns_of_nothing(tmp_path):
    file = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))
    schema = yaml.safe_load(file.read_text())
    assert schema["openapi"].startswith("3.1")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            problem = answers["default"]["content"]["application/problem+json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/Problem"}, (path, method)


def test_every_address_answers_with_and_without_its_slash(client):
    routes = [str(pattern.pattern) for pattern in urls.urlpatterns]
    assert {route.rstrip("/") for route in routes if route.endswith("/")} == {
        route for route in routes if not route.endswith("/")
    }
    for route in routes:
        path = "/" + re.sub(r"<uuid:\w+>", "01a20c28-079b-77dc-baa7-db67398a7898", route).replace("<str:name>", "x")
        for method in ("get", "post"):
            assert getattr(client, method)(path).status_code not in (301, 302, 307, 308), path


def test_the_pages_are_served_from_here(client):
    page = client.get("/api/docs/").content.decode()
    assert "https://" not in page
    assert "http://" not in page
    assert not re.search(r"<script>[^<]", page)  # no inline script
    script = client.get("/api/docs/?script=")
    assert script.status_code == 200
    assert "cdn" not in script.content.decode()
    assert client.get("/api/schema/").status_code == 200


def test_names_resolve_once():
    names = [name for name in get_resolver().reverse_dict if isinstance(name, str)]
    assert len(names) == len(set(names))
