"""The real stack for a module of browser tests, booted once.

Playwright's sync API runs an event loop in this thread, where Django refuses the ORM: what the tests need in the
database is put there by `stack.python`, in a process of the platform's own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import BrowserContext, Page, expect

from jobsite.supervisor import hold_port
from tests.waiting import until

SECONDS = 20  # that a page may take to become what a test waits for: the machine is shared
expect.set_options(timeout=SECONDS * 1000)


class Stack:
    """`manage.py up` in a home of its own, with two slots and the KITCHEN kind."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="jb-"))  # short: it holds the broker's socket
        self.held = hold_port()
        self.port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if name not in ("CELERY_BROKER_URL", "DATABASE_URL")}
        self.env = kept | {
            "JOBSITE_HOME": str(self.home),
            "PORT": str(self.port),
            "WORKER_SLOTS": "2",
            "JOB_HEARTBEAT_SECONDS": "0.5",
        }
        self.log = self.home / "up.log"

    def start(self) -> None:
        with open(self.log, "wb") as log:
            command = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "manage.py", "up"]
            self.process = subprocess.Popen(command, cwd=settings.BASE_DIR, env=self.env, stdout=log, stderr=log)
        until(self._is_up, seconds=90, every=0.2)

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text()[-3000:])
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return "worker" in self.log.read_text()
        except urllib.error.HTTPError as refused:
            refused.close()
        except OSError:
            pass
        return False

    def python(self, code: str, **values) -> str:
        """Run code, which knows `values`, with Django set up on the platform's database; returns what it prints."""
        setup = "import os, django\nos.environ['DJANGO_SETTINGS_MODULE'] = 'jobsite.settings'\ndjango.setup()\n"
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        command = [sys.executable, "-c", setup + given + textwrap.dedent(code)]
        done = subprocess.run(command, cwd=settings.BASE_DIR, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its children end with it
            self.process.wait(10)
        self.held.close()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The platform with the users ann (1,000 tokens), bob, and op, who operates; passwords are <name>-password."""
    running = Stack()
    try:
        running.start()
        running.python("""
            from django.contrib.auth import get_user_model
            from tokens import ledger
            users = get_user_model().objects
            for name, more in {"ann": {}, "bob": {}, "op": {"is_staff": True, "is_superuser": True}}.items():
                person = users.create_user(name, f"{name}@example.com", f"{name}-password", **more)
                ledger.grant(ledger.open_account(person.pk).pk, 1000, reason="for the test")
        """)
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def signed_in(stack, chromium):
    """signed_in("ann", color_scheme="dark", …) → a browser context of that user's; the sign-in itself is done once."""
    states: dict[str, dict] = {}
    opened: list[BrowserContext] = []

    def make(name: str, **options) -> BrowserContext:
        if name not in states:
            context = chromium.new_context(base_url=stack.url)
            page = context.new_page()
            page.goto("/sign-in/")
            page.fill("#id_username", name)
            page.fill("#id_password", f"{name}-password")
            page.click("main button")
            page.wait_for_url("**/my/jobs/")
            states[name] = context.storage_state()
            context.close()
        made = chromium.new_context(base_url=stack.url, storage_state=states[name], **options)
        made.set_default_timeout(SECONDS * 1000)
        opened.append(made)
        return made

    yield make
    for context in opened:
        context.close()


def complaints(page: Page) -> list[str]:
    """What goes wrong in the page from now on: errors of scripts, and what the Content-Security-Policy refuses."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on(
        "console",
        lambda said: (
            said.type == "error"
            and "Failed to load resource" not in said.text
            and wrong.append(f"{page.url}: {said.text}")
        ),
    )
    return wrong
