"""S33: who can put messages into the broker, and what the workers take from it."""

import errno
import os
import pickle
import socket
import subprocess
from pathlib import Path

import pytest
import redis
from celery import current_app
from celery.exceptions import NotRegistered
from kombu import Connection
from kombu.exceptions import ContentDisallowed

from jobsite import broker
from tests.waiting import until

NOBODY = 65534


@pytest.fixture
def running(settings, tmp_path):
    """An embedded broker of the test's own; its socket's path."""
    settings.HOME = settings.LOG_DIR = tmp_path
    settings.RUNTIME = tmp_path / "run"
    settings.BROKER_SOCKET = settings.RUNTIME / "broker.sock"
    server = subprocess.Popen(broker.command(), stdin=subprocess.DEVNULL)
    try:
        until(lambda: answers(settings.BROKER_SOCKET), seconds=20)
        yield settings.BROKER_SOCKET
    finally:
        server.kill()
        server.wait()


def answers(path: Path) -> bool:
    """Whether the broker is up: its socket is there a moment before that, and open to all."""
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return client.ping()
    except redis.RedisError:
        return False


def errno_as_nobody(path: Path) -> int:
    """What connecting to `path` gives another user of this host; 0: connected."""
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(path)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_second_user_of_this_host_cannot_connect(running, tmp_path):
    """The folder is closed, and the socket in it, too; with both open, as at the end, he gets in."""
    for folder in [tmp_path, *tmp_path.parents]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)  # pytest's own folders are closed as well: what is tested is ours
    assert errno_as_nobody(running) == errno.EACCES
    running.parent.chmod(0o711)
    assert errno_as_nobody(running) == errno.EACCES
    running.chmod(0o777)
    assert errno_as_nobody(running) == 0


def test_it_has_no_port(running):
    with redis.Redis(unix_socket_path=str(running)) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("tls-port") == {"tls-port": "0"}
        server = client.info("server")["process_id"]
    sockets = _sockets(server)
    assert sockets
    for name in ("tcp", "tcp6"):
        lines = Path(f"/proc/{server}/net/{name}").read_text().splitlines()[1:]
        assert not sockets & {line.split()[9] for line in lines}  # the inode


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's open sockets."""
    folder = f"/proc/{pid}/fd"
    links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def delivered(body: bytes, content_type: str, encoding: str):
    """What a consumer of the workers' settings makes of a message."""
    got = []
    with Connection("memory://") as connection:
        queue = connection.SimpleBuffer("s33", serializer="json")
        queue.producer.publish(body, content_type=content_type, content_encoding=encoding)
        with connection.channel() as channel:
            consumer = current_app.amqp.Consumer(channel, [queue.queue], accept=current_app.conf.accept_content)
            consumer.register_callback(lambda content, message: got.append(content))
            consumer.on_decode_error = lambda message, error: got.append(error)
            with consumer:
                connection.drain_events(timeout=20)
    return got[0]


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/x-python-serialize", "binary"),
        ("application/x-yaml", "utf-8"),
        ("application/x-msgpack", "binary"),
    ],
)
def test_a_message_that_is_not_json_is_refused(content_type, encoding, tmp_path):
    """Seen with accept_content ["json", "pickle"]: the message's code runs in the worker."""
    made = tmp_path / "made"
    assert isinstance(delivered(pickle.dumps(Bomb(made)), content_type, encoding), ContentDisallowed)
    assert not made.exists()
    assert delivered(b'{"a": 1}', "application/json", "utf-8") == {"a": 1}


def test_nothing_else_of_celery_takes_pickle():
    """Neither results nor events, though nobody sends any."""
    conf = current_app.conf
    for name in ("accept_content", "result_accept_content"):
        assert set(getattr(conf, name) or ["json"]) == {"json"}, name
    assert {conf.task_serializer, conf.result_serializer, conf.event_serializer} == {"json"}


def test_a_worker_runs_our_tasks_alone_and_only_queues_that_are_ours():
    """A message can name no function: tasks are found by the names that were registered, Celery's own among them."""
    current_app.loader.import_default_modules()  # as a worker does
    with pytest.raises(NotRegistered):
        current_app.tasks["os.system"]
    ours = {name for name in current_app.tasks if not name.startswith("celery.")}
    assert ours
    assert {name.partition(".")[0] for name in ours} == {"jobs"}
    assert current_app.tasks["jobs.work"].run("no-such-queue") == 0
    assert current_app.tasks["jobs.work"].run({"a": 1}) == 0
