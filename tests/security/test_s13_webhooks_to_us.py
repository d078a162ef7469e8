"""S13: a webhook leads to the open internet or nowhere. Forty spellings of this host reach no listener of ours, and
the same probe reaches it where the operator trusts this host; nor does a resolver that changes its mind."""

import socket
from contextlib import ExitStack, suppress

import pytest

from jobs import webhook_sender, webhooks
from jobs.engines import outbound
from jobs.errors import Refused
from jobs.models import Delivery, Endpoint
from tests.receiver import receiver, status
from tests.waiting import until

pytestmark = pytest.mark.django_db
HOSTS = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "127.0.0.1%00.example.com",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "255.255.255.255",
    "224.0.0.1",
]
REACHES_US = [*HOSTS[:7], *HOSTS[8:13], "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"]


@pytest.fixture(autouse=True)
def many(settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOKS_PER_USER": 50}


@pytest.fixture
def got():
    """One listener for all of it, on every address of this host, by IPv4 and IPv6."""
    with ExitStack() as stack, receiver("") as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        six = stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        server.port, server.six = port, six
        six.setblocking(False)
        yield server


def hits(server) -> int:
    """Requests and connections that came; those by IPv6 are counted as they knock."""
    with suppress(BlockingIOError):
        while True:
            server.six.accept()[0].close()
            server.got.append(({"Host": "IPv6"}, ""))
    return len(server.got)


def probe(owner, *urls: str) -> None:
    """Owe a message to each address, as if it had come past the API, and deliver them."""
    for url in urls:
        endpoint, _ = webhooks.create(owner.pk, url="https://example.com/")
        Endpoint.objects.filter(pk=endpoint.pk).update(url=url)
        webhooks.send_test(endpoint)
    assert webhook_sender.deliver() == len(urls)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_forty_spellings_reach_nobody(ann, got, monkeypatch, scheme):
    assert len(set(HOSTS)) == 40
    monkeypatch.setattr(webhooks, "PORTS", (443, got.port))  # so that no port saves it
    urls = [f"{scheme}://{host}:{got.port}/" for host in HOSTS]
    for url in urls:
        with pytest.raises(Refused):
            webhooks.create(ann.pk, url=url)
    probe(ann, *urls)
    assert hits(got) == 0


def test_the_probe_reaches_us_where_it_is_allowed(ann, got, monkeypatch, settings):
    """The same addresses, guard off: each of those that lead here hits the listener."""
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.ANYWHERE}
    monkeypatch.setattr(webhook_sender, "DEADLINE", 4.0)
    probe(ann, *[f"http://{host}:{got.port}/" for host in REACHES_US])
    until(lambda: hits(got) >= len(REACHES_US))
    assert hits(got) == len(REACHES_US)


@pytest.mark.parametrize(
    "url",
    [
        "gopher://example.com/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:22/",
        "https://example.com:6379/",
        "http://example.com/",
        "//example.com/",
        "https://",
        "https://exa mple.com/",
        "https://a\r\nHost: b/",
    ],
)
def test_forms_that_may_not_be(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked for a name"))
    with pytest.raises(outbound.Refused):
        outbound.check(url, ports=webhooks.PORTS)


class Fickle:
    """A resolver that calls a name public the first time and ours afterwards; numbers it reads as they are."""

    def __init__(self, *answers: list[str]):
        self.answers, self.asked, self.real = list(answers), 0, socket.getaddrinfo

    def __call__(self, host, port, *args, **options):
        if host != "rebind.example.com":
            return self.real(host, port, *args, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror("not a number")
        ips = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]


def test_a_resolver_that_changes_its_mind_is_asked_once(ann, got, monkeypatch):
    """What was judged is connected to. The open internet cannot be had here, so its end of the line is cut."""
    fickle, connected = Fickle(["1.1.1.1"], ["127.0.0.1"]), []

    def connect(self, address):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", fickle)
    monkeypatch.setattr(webhooks, "PORTS", (443, got.port))
    with monkeypatch.context() as cut:
        cut.setattr(socket.socket, "connect", connect)
        probe(ann, f"https://rebind.example.com:{got.port}/")
    assert (fickle.asked, connected, hits(got)) == (1, [("1.1.1.1", got.port)], 0)
    assert Delivery.objects.get().log[0]["error"] == "The host cannot be reached."


def test_the_second_answer_would_have_reached_us(ann, got, monkeypatch, settings):
    """The probe of the test above, without the guard: the name leads to our listener."""
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.ANYWHERE}
    monkeypatch.setattr(socket, "getaddrinfo", Fickle(["127.0.0.1"]))
    probe(ann, f"http://rebind.example.com:{got.port}/")
    assert hits(got) == 1 and got.got[0][0]["Host"] == f"rebind.example.com:{got.port}"


@pytest.mark.parametrize("ips", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["1.1.1.1", "10.0.0.1"]])
def test_every_address_of_a_name_is_judged(ann, got, monkeypatch, ips):
    monkeypatch.setattr(socket, "getaddrinfo", Fickle(ips))
    monkeypatch.setattr(webhooks, "PORTS", (443, got.port))
    probe(ann, f"https://rebind.example.com:{got.port}/")
    assert Delivery.objects.get().log[0]["error"] == "The host is not on the open internet." and hits(got) == 0


def test_a_redirect_to_us_is_not_followed(ann, got, settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    with receiver() as elsewhere:
        for code in (301, 302, 303, 307, 308):
            elsewhere.says = status(code, Location=got.url)
            probe(ann, elsewhere.url)
            Endpoint.objects.all().delete()
        assert len(elsewhere.got) == 5 and hits(got) == 0


def test_no_proxy_of_the_environment_is_used(ann, got, monkeypatch, settings):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    with receiver() as elsewhere:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{got.port}")
        probe(ann, elsewhere.url)
        assert len(elsewhere.got) == 1 and hits(got) == 0
