import asyncio

from django.test import AsyncClient, Client

CSS = "/static/unfold/css/styles.css"


def test_the_admins_own_files_are_served():
    answer = Client().get(CSS)
    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert len(answer.content) == int(answer["Content-Length"]) > 1000
    assert Client().get("/static/unfold/nothing.css").status_code == 404


def test_an_unchanged_file_is_a_304():
    first = Client().get(CSS)
    again = Client().get(CSS, headers={"If-Modified-Since": first["Last-Modified"]})
    assert (again.status_code, again.content) == (304, b"")


def test_served_under_asgi_without_a_warning():
    answer = asyncio.run(AsyncClient().get(CSS))  # warnings are errors in all tests
    assert answer.status_code == 200
