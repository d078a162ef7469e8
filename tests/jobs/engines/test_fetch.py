"""S13, S16: an address that a stranger named leads to the open internet or nowhere."""

import ipaddress
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from jobs.engines import fetch, outbound

PUBLIC = "93.184.215.14"


@pytest.fixture
def resolve(monkeypatch):
    """resolve(*ips): what every name resolves to; numbers in all spellings go through the real resolver."""
    real = socket.getaddrinfo

    def set_to(*ips):
        def resolver(host, port, *, flags=0, **options):
            if flags & socket.AI_NUMERICHOST:  # asks for no name: what a name resolves to must be judged by itself
                return real(host, port, flags=flags, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

        monkeypatch.setattr(socket, "getaddrinfo", resolver)

    return set_to


@pytest.fixture
def no_connection(monkeypatch):
    """Fails the test if anything is connected to."""

    def refuse(*_, **__):
        raise AssertionError("connected")

    monkeypatch.setattr(httpx.Client, "stream", refuse)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://example.com/",
        "http://example.com/x",
        "data:video/mp4;base64,AAAA",
        "//example.com/x",
        "example.com/x",
        "",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com:22/",
        "https://example.com:8443/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://localhost/",
        "https://0/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fec0::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[ff02::1]/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://exa mple.com/",
        "https://a\r\nHost: b/",
        "https://[::1",
    ],
)
def test_nothing_is_connected_to(url, no_connection, tmp_path):
    with pytest.raises((fetch.Refused, fetch.Failed)) as raised:
        fetch.fetch(url, tmp_path / "x", most=100, seconds=30)
    assert url not in str(raised.value) or not url


@pytest.mark.parametrize("url", ["http://files.example.com:443/x", "https://files.example.com:8443/x"])
def test_a_public_name_only_by_https_on_its_port(url, resolve, no_connection, tmp_path):
    resolve(PUBLIC)
    with pytest.raises(fetch.Refused):
        fetch.fetch(url, tmp_path / "x", most=100, seconds=30)


@pytest.mark.parametrize("ips", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:169.254.169.254"], ["0.0.0.0"]])
def test_a_public_name_with_a_private_address(ips, resolve, no_connection, tmp_path):
    resolve(*ips)
    with pytest.raises(fetch.Refused, match="open internet"):
        fetch.fetch("https://files.example.com/x", tmp_path / "x", most=100, seconds=30)


def test_the_address_that_was_judged_is_connected_to(resolve, monkeypatch, tmp_path):
    """A resolver that answers differently the second time changes nothing: it is not asked a second time."""
    resolve(PUBLIC)
    seen = []

    def connect(self, method, url, headers, extensions):
        resolve("127.0.0.1")
        seen.append((url.host, headers["Host"], extensions["sni_hostname"]))
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(httpx.Client, "stream", connect)
    with pytest.raises(fetch.Failed):
        fetch.fetch("https://files.example.com/x?token=t", tmp_path / "x", most=100, seconds=30)
    assert seen == [(PUBLIC, "files.example.com", "files.example.com")]


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ConnectTimeout])
def test_the_next_address_is_tried_if_the_first_cannot_be_reached(resolve, monkeypatch, tmp_path, failure):
    resolve("2606:4700::1111", PUBLIC)
    seen = []

    def connect(self, method, url, headers, extensions):
        seen.append(url.host)
        raise failure("no way there")

    monkeypatch.setattr(httpx.Client, "stream", connect)
    with pytest.raises(fetch.Failed, match="cannot be reached"):
        fetch.fetch("https://files.example.com/x", tmp_path / "x", most=100, seconds=30)
    assert seen == ["2606:4700::1111", PUBLIC]


@pytest.mark.parametrize("ip", [PUBLIC, "8.8.8.8", "2606:4700::1111"])
def test_public(ip):
    assert outbound.is_public(ip)


@pytest.mark.parametrize("ip", ["::ffff:8.8.8.8"])
def test_a_mapped_address_is_judged_as_what_it_is(ip):
    assert outbound.is_public(ip)
    assert not outbound.is_public("::ffff:10.0.0.1")
    assert ipaddress.ip_address(ip).version == 6


class Host(BaseHTTPRequestHandler):
    """Serves bytes as its path says."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        word, _, count = self.path.strip("/").partition("/")
        self.send_response(302 if word == "moved" else 404 if word == "gone" else 200)
        if word == "moved":
            self.send_header("Location", "/plain/5")
        if word == "packed":
            self.send_header("Content-Encoding", "gzip")
        if word == "liar":
            self.send_header("Content-Length", "99")
        if word == "nonsense":
            self.send_header("Content-Length", "-1")
        self.end_headers()
        self.wfile.write(b"x" * int(count or 0))


@pytest.fixture(scope="module")
def host():
    server = HTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_what_is_there_is_written(host, tmp_path):
    fetch.fetch(f"{host}/plain/5000", tmp_path / "x", most=5000, seconds=30, loopback=True)
    assert (tmp_path / "x").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("path", ["plain/5001", "moved", "gone", "packed/10", "liar/10", "nonsense/10"])
def test_what_is_not_as_it_should_be(host, path, tmp_path):
    with pytest.raises(fetch.Failed):
        fetch.fetch(f"{host}/{path}", tmp_path / "x", most=5000, seconds=30, loopback=True)


def test_this_host_only_where_it_is_allowed(host, tmp_path):
    with pytest.raises(fetch.Refused):
        fetch.fetch(f"{host}/plain/5", tmp_path / "x", most=5000, seconds=30)


def test_it_takes_no_longer_than_allowed(host, tmp_path):
    with pytest.raises(fetch.Failed, match="too long"):
        fetch.fetch(f"{host}/plain/5", tmp_path / "x", most=5000, seconds=-1, loopback=True)


def test_it_ends_when_told(host, tmp_path):
    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(f"{host}/plain/5", tmp_path / "x", most=5000, seconds=30, loopback=True, check=check)
