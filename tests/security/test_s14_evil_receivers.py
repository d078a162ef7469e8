"""S14: whatever a receiver answers, it costs us DEADLINE seconds of one try and 16 KB, and the others get theirs."""

import gzip
import os
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jobs import webhook_sender, webhooks
from jobs.engines import outbound
from jobs.models import Delivery, Endpoint
from tests.receiver import receiver, status

pytestmark = pytest.mark.django_db
DEADLINE = 2.5  # seconds, of these tests
DELAY = 20.0  # seconds that a busy machine adds at most; without the deadline it would be for ever


@pytest.fixture(autouse=True)
def here(settings, monkeypatch):
    settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
    monkeypatch.setattr(webhook_sender, "DEADLINE", DEADLINE)


def drip(request):
    """A byte now and then: no single read ever times out."""
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b".")
        time.sleep(0.1)


def flood(request):
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"x" * 65_536)


def headers_without_end(request):
    request.send_response(200)
    for number in range(200_000):
        request.send_header(f"X-{number}", "y" * 50)
    request.end_headers()


def slow_headers(request):
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        request.wfile.write(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("says", "state"),
    [(drip, "owed"), (flood, "delivered"), (headers_without_end, "owed"), (slow_headers, "owed"), (None, "owed")],
)
def test_it_costs_a_deadline_and_16_kb(ann, says, state):
    with receiver() as evil:
        evil.says = says or evil.hang
        _probe(ann, evil.url, within=DEADLINE + DELAY)
        delivery = Delivery.objects.get()
        assert delivery.state == state and len(evil.got) == 1
        assert len(delivery.log[0]["excerpt"]) <= webhook_sender.EXCERPT
        assert delivery.log[0]["seconds"] <= DEADLINE + DELAY


def _probe(owner, url: str, *, within: float) -> None:
    endpoint, _ = webhooks.create(owner.pk, url=url)
    webhooks.send_test(endpoint)
    began = time.monotonic()
    webhook_sender.deliver()
    assert time.monotonic() - began < within


def test_a_gzip_bomb_stays_packed(ann):
    """Seen to be read as 50 MB when the body was taken decoded."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    with receiver() as evil:
        evil.says = status(500, bomb, Content_Encoding="gzip")
        _probe(ann, evil.url, within=DEADLINE + DELAY)
        assert evil.got[0][0]["Accept-Encoding"] == "identity"
    assert Delivery.objects.get().log[0]["excerpt"] == webhook_sender._excerpt(bomb) != ""  # unpacked it is all blanks


def test_a_cookie_does_not_come_back(ann):
    with receiver() as evil:
        evil.says = status(500, Set_Cookie="track=1")
        _probe(ann, evil.url, within=DELAY)
        Delivery.objects.update(next_at="2026-01-01T00:00Z")
        webhook_sender.deliver()
        assert len(evil.got) == 2 and "Cookie" not in evil.got[1][0]


def test_what_an_answer_says_is_one_printable_line(ann):
    with receiver() as evil:
        evil.says = status(500, "a\r\nERROR jobs forged\x1b[31m \u202egnp.exe <script>\0".encode())
        _probe(ann, evil.url, within=DELAY)
    assert Delivery.objects.get().log[0]["excerpt"] == "a ERROR jobs forged [31m gnp.exe <script>"


def test_twenty_that_hang_hold_nobody_elses_message(ann, bob, user):
    """The hanging ones are made first; the one that works gets its message while they still hang."""
    with receiver() as evil, receiver() as good:
        evil.says = evil.hang
        for number in range(5):
            owner = user(f"evil{number}")
            for _ in range(4):
                endpoint, _ = webhooks.create(owner.pk, url=evil.url)
                webhooks.send_test(endpoint)
        webhooks.send_test(webhooks.create(bob.pk, url=good.url)[0])
        came = []
        good.says = lambda request: (came.append(time.monotonic()), status(204)(request))
        began = time.monotonic()
        webhook_sender.deliver()
        assert came[0] - began < DEADLINE < time.monotonic() - began
        assert evil.got and Endpoint.objects.filter(failures=1).count() == 20


@contextmanager
def breaks_its_tls(folder):
    """A host with a good certificate that goes on in plain text after the handshake; yields its port."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "certificate").write_bytes(certificate)
    (folder / "both").write_bytes(certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "both")

    def serve() -> None:
        plain = listening.accept()[0]
        with tls.wrap_socket(plain, server_side=True) as wrapped:
            wrapped.recv(1)
            with socket.socket(fileno=os.dup(wrapped.fileno())) as beneath:
                beneath.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            closing.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        closing, thread = threading.Event(), threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            closing.set()
            thread.join()


def test_broken_tls_costs_nobody_else_a_message(ann, bob, tmp_path, monkeypatch):
    """It ended the sender, all that was under way, and again so each minute."""
    with breaks_its_tls(tmp_path) as port, receiver() as good:
        trusting = ssl.create_default_context(cafile=tmp_path / "certificate")
        monkeypatch.setattr(outbound, "_certificates", lambda: trusting)
        evil, _ = webhooks.create(ann.pk, url=f"https://localhost:{port}/")
        webhooks.send_test(evil)
        webhooks.send_test(webhooks.create(bob.pk, url=good.url)[0])
        assert webhook_sender.deliver() == 2
    assert [delivery.state for delivery in Delivery.objects.order_by("pk")] == ["owed", "delivered"]
    assert Delivery.objects.order_by("pk")[0].log[0]["error"] == "The host did not answer as it should."


def test_names_that_hang_hold_nobody_elses_message(ann, bob, monkeypatch):
    held, real = threading.Event(), outbound.resolve

    def resolve(address, **options):
        if address.host == "slow.example.com":
            held.wait(20)
        return real(address, **options)

    monkeypatch.setattr(outbound, "resolve", resolve)
    try:
        with receiver() as good:
            for _ in range(8):
                endpoint, _ = webhooks.create(ann.pk, url="https://slow.example.com/")
                webhooks.send_test(endpoint)
            webhooks.send_test(webhooks.create(bob.pk, url=good.url)[0])
            began = time.monotonic()
            webhook_sender.deliver()
            assert len(good.got) == 1 and time.monotonic() - began < DEADLINE + 10  # of the 20 that they hang
            assert Delivery.objects.filter(delivered_at=None).count() == 8
    finally:
        held.set()
