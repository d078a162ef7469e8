"""What `manage.py up` says, and to whom. (That it keeps the platform up: tests/faults/test_supervisor.py.)"""

import contextlib

import pytest

from jobsite.management.commands.up import Command

pytestmark = pytest.mark.django_db


@pytest.fixture
def command():
    """One whose words nobody takes, as in `manage.py up | tee up.log` on a full disk."""
    with contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full:  # closing it flushes once more
        yield Command(stdout=full, stderr=full)


def test_nobody_who_listens_is_no_reason_to_end(command, settings):
    settings.DEBUG = True  # so that there is something to warn of
    command.key = ""
    command.warn()
    command.announce()


def test_an_admin_whose_password_cannot_be_told_is_not_made(command, django_user_model):
    with pytest.raises(OSError, match="No space left"):
        command.first_admin()
    assert not django_user_model.objects.exists()
