"""A real browser on the real site: Chromium, headless, on uvicorn in a thread, over the test's own database."""

import os
import shutil
import socket
import threading

import pytest

from tests.browser.stack import signed_in, stack  # noqa: F401 - fixtures
from tests.jobs.conftest import running, submit  # noqa: F401 - fixtures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def chromium():
    """The browser, one for a module: while it is there, Playwright keeps an event loop in this thread, beside which the
    ORM is used all the same and no other loop can run. Where there is none, what needs it is skipped, and `make test`
    says so."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        program = CHROMIUM or playwright.chromium.executable_path
        if not os.path.exists(program):
            pytest.skip("No Chromium is installed: apt install chromium, or .venv/bin/playwright install chromium.")
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def site(transactional_db, settings):
    """The address of the running site. Its database is the test's, and other threads see what the test committed."""
    import uvicorn
    from django.db import connections

    from jobsite.asgi import application

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings.SITE_URL = address
        settings.CSRF_TRUSTED_ORIGINS = [address]
        server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield address
        server.should_exit = True
        thread.join(10)
        connections.close_all()


@pytest.fixture
def browse(chromium, site):
    """browse(user, viewport=PHONE, dark=True) → a page signed in as that user, at the site; console errors fail it."""
    from django.conf import settings
    from django.test import Client

    contexts, errors = [], []

    def make(user=None, *, viewport=DESKTOP, dark=False):
        context = chromium.new_context(
            viewport=viewport, color_scheme="dark" if dark else "light", base_url=site, reduced_motion="reduce"
        )
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": site}])
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors, errors


@pytest.fixture
def well():
    """well(page): fails if axe-core finds something serious or critical on the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page, *, within: str | None = None):
        found = Axe().run(page, context=within).response["violations"]
        bad = [
            f"{rule['id']}: {rule['help']}: {[node['html'][:160] for node in rule['nodes'][:3]]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert not bad, "\n".join(bad)

    return check


@pytest.fixture
def picture():
    """picture(page, "operator-desktop"): a screenshot for docs/screenshots, taken only with SCREENSHOTS=1."""
    from pathlib import Path

    def take(page, name: str) -> None:
        if os.environ.get("SCREENSHOTS"):
            folder = Path(__file__).parents[2] / "docs" / "screenshots"
            folder.mkdir(exist_ok=True)
            page.screenshot(path=folder / f"{name}.png")

    return take
