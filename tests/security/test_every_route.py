"""Every route of the project, as nobody, as another user and as each role: API, dialects, pages, admin, probes.

What is asked of an address follows from its row in `TABLE`; an address without one fails. That the objects would be
found by whom they belong to, so that the 404s are about whose they are, is the last test.
"""

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import Client

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tests.clients import ApiClient
from tests.security.routes import arguments, fill, routes

pytestmark = pytest.mark.django_db
PUBLIC, SECRET, OWN, STAFF, PAGE, ADMIN = "public", "secret", "own", "staff", "page", "admin"
TABLE = {  # the beginning of a route → what it is; the longest that fits counts
    "": PUBLIC,  # the way to the pages, nothing below it
    **dict.fromkeys(["livez", "readyz", "health", "metrics", "api/schema", "api/docs", "favicon.ico"], PUBLIC),
    **dict.fromkeys(["sign-in", "sign-up", "password-reset", "my/progress", "admin/login"], PUBLIC),
    **dict.fromkeys(["api/cron", "api/runpod"], SECRET),
    **dict.fromkeys(["api/jobs", "api/events", "api/uploads", "api/upload", "api/tokens", "api/webhooks"], OWN),
    **dict.fromkeys(["jobs", "api/job-status", "api/cancel"], OWN),
    **dict.fromkeys(["api/admin", "api/ingest"], STAFF),
    **dict.fromkeys(["my", "sign-out"], PAGE),
    "admin": ADMIN,
}
MAY = {"api/admin/tokens": {"finance", "admin"}, "api/admin/jobs/cleanup": {"admin"}, "api/ingest": {"admin"}}
KEYS_ALONE = "api/ingest"  # takes no session
NEEDS_NONE = "stream-token"  # refused to any session before the id is looked at: a session needs none
FORMS = ("api/upload", "api/uploads")  # take no JSON
VERDICTS = ("health", "readyz")  # 503 says that the platform is not well
ROLES = ["viewer", "operator", "finance", "admin"]
METHODS = ["GET", "POST", "OPTIONS", "HEAD", "PUT", "PATCH", "DELETE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE"]


def row(route: str, table: dict):
    """The table's entry for a route; None if there is none."""
    parts = route.rstrip("/").split("/")
    beginnings = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((table[start] for start in beginnings if start in table), None)


def of_kind(*kinds: str) -> list[str]:
    return [route for route in routes() if row(route, TABLE) in kinds]


@pytest.fixture
def anns(ann, succeeded, running, submit, upload, webhook, user):
    """Values for the arguments of all routes, ids of Ann's where something is somebody's: one for each of her jobs."""
    jobs = [Job.objects.get(pk=running().job_id), succeeded()]
    for kind in ("ANALYZE", "INGEST"):
        lease = running(max_attempts=1)
        lifecycle.fail(lease, JobError(ErrorCode.bad_input))
        Job.objects.filter(pk=lease.job_id).update(kind=kind)
        jobs.append(Job.objects.get(pk=lease.job_id))
    jobs.append(submit())
    common = {
        "upload_id": str(upload().pk),
        "name": "dish.txt",
        "kind": "KITCHEN",
        "key_id": str(keys.issue(ann, "ann-private")[0].pk),
        "percent": "50",
        "uidb64": "MQ",
        "token": "no-token",
        "call_id": str(jobs[0].pk),
        "secret": "no-secret",
        "id": str(ann.pk),
        "object_id": str(ann.pk),
        "content_type_id": "1",
        "form": "csv",
        "app_label": "jobs/",
        "url": "nothing/here",
        **webhook,
    }
    return [common | {"job_id": str(job.pk)} for job in jobs]


@pytest.fixture
def person(user):
    """person("finance") → a member of staff in that group."""

    def make(role: str):
        who = user(f"the-{role}", tokens=0, is_staff=True)
        who.groups.add(Group.objects.get(name=role))
        return who

    return make


def addresses(route: str, anns: list[dict]) -> list[str]:
    """The route's address, for each of Ann's jobs if it names one."""
    return [fill(route, ids) for ids in (anns if "job_id" in arguments(route) else anns[:1])]


def is_somebodys(route: str) -> bool:
    return bool({"job_id", "upload_id", "webhook_id", "delivery_id", "key_id"} & set(arguments(route)))


def everything() -> dict:
    """All rows but those that looking writes: of sessions, and when a key or an account was last used."""
    skipped = {"last_used_at", "last_login"}
    return {
        model: [
            {name: value for name, value in values.items() if name not in skipped}
            for values in model._default_manager.order_by("pk").values()
        ]
        for model in apps.get_models(include_auto_created=True)
        if model._meta.label not in ("sessions.Session", "jobs.Throttle")
    }


def ask(client: Client, method: str, address: str) -> int:
    """The status of an answer, which tells nothing of Ann's; a stream is not read."""
    if method == "POST" and address.strip("/") in FORMS:
        answer = client.post(address, {"x": "1"})
    else:
        body = b"" if method in ("GET", "HEAD") else b"{}"
        answer = client.generic(method, address, body, content_type=ApiClient.JSON)
    if answer.streaming:
        request_finished.disconnect(close_old_connections)  # the test's transaction goes on
        answer.close()
        request_finished.connect(close_old_connections)
    else:
        body = answer.content.decode(errors="replace")
        assert answer.status_code < 300 or "ann-private" not in body, (method, address)
    unwell = answer.status_code == 503 and address.strip("/") in VERDICTS
    assert answer.status_code < 500 or unwell, (method, address, answer.status_code)
    return answer.status_code


def browser(user=None, **options) -> Client:
    client = Client(raise_request_exception=False, **options)
    if user:
        client.force_login(user)
    return client


def test_every_route_is_in_the_table():
    assert [route for route in routes() if row(route, TABLE) is None] == []
    assert {route for route in of_kind(PUBLIC) if route.startswith(("api/", "my/", "admin/"))} < set(routes())
    assert len(routes()) > 150


@pytest.mark.parametrize("sign_up", ["off", "open"])
def test_nobody_is_let_in(anns, settings, sign_up):
    settings.MAIL = True
    settings.JOBSITE = {**settings.JOBSITE, "SIGN_UP": sign_up}
    client, before = browser(), everything()
    fine = {
        PUBLIC: {200, 302, 400, 404, 405, 503},
        SECRET: {401, 404, 405, 429},
        OWN: {401, 405},
        STAFF: {401, 405},
        PAGE: {302, 405},
        ADMIN: {302, 403, 404, 405},
    }
    for route in routes():
        kind = row(route, TABLE)
        seen = {
            ask(client, method, addresses(route, anns)[0])
            for method in (METHODS if kind in (OWN, STAFF, PUBLIC) else ["GET", "POST"])
        }
        assert seen <= fine[kind], (route, seen)
        assert kind not in (OWN, STAFF) or 401 in seen, route
    assert everything() == before


@pytest.mark.parametrize("by", ["key", "session"])
def test_another_user_finds_nothing_of_anns(anns, user, by):
    bob = user("bob", tokens=0)  # so that what he asks for himself is refused, too: nothing at all may change
    client, before = (ApiClient(bob) if by == "key" else browser(bob)), everything()
    for route in of_kind(OWN, STAFF, *([PAGE] if by == "session" else [])):
        for address in addresses(route, anns):
            seen = {ask(client, method, address) for method in METHODS if not route.startswith("sign-out")}
            if row(route, TABLE) == STAFF:
                expected = {401, 405} if by == "session" and route.startswith(KEYS_ALONE) else {403, 405}
                assert seen <= expected, (address, seen)
            elif is_somebodys(route):
                expected = {403, 405} if by == "session" and NEEDS_NONE in route else {404, 405}
                assert seen <= expected, (address, seen)
            else:
                assert not seen & {401, 403}, (address, seen)
    if by == "session":
        for route in of_kind(ADMIN):
            seen = {ask(client, method, fill(route, anns[0])) for method in ("GET", "POST") if "logout" not in route}
            assert seen <= {302, 403, 404, 405}, (route, seen)
    assert everything() == before


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reads_and_does_what_is_its_own(anns, person, role):
    who = person(role)
    with_key = ApiClient(who, scope=role)
    signed_in = browser(who)
    for route in of_kind(OWN, STAFF, PUBLIC, SECRET):
        seen = {ask(client, "GET", fill(route, anns[0])) for client in (with_key, signed_in)}
        assert row(route, TABLE) != OWN or 401 not in seen, (route, seen)
    for route in of_kind(STAFF):
        seen = {ask(with_key, method, fill(route, anns[0])) for method in ("GET", "POST")}
        assert (403 in seen) == (role not in row(route, MAY)), (route, seen)
    for route in of_kind(PAGE):
        assert ask(signed_in, "GET", fill(route, anns[0])) in (200, 302, 403, 404, 405), route
    for route in of_kind(ADMIN) if role == "viewer" else []:
        assert "logout" in route or ask(signed_in, "GET", fill(route, anns[0])) in (200, 302, 400, 403, 404, 405), route
    if role in ("viewer", "finance"):  # whose hands are off other people's jobs
        before = everything()  # an export that was read is in the operators' log
        for route in filter(is_somebodys, of_kind(OWN, PAGE)):
            client = with_key if row(route, TABLE) == OWN else signed_in
            seen = {ask(client, method, address) for method in UNSAFE for address in addresses(route, anns)}
            reads = {200} if NEEDS_NONE in route else set()  # what may be read may be watched
            assert seen <= {403, 404, 405} | reads, (route, seen)
        assert everything() == before


def test_a_session_alone_changes_nothing(anns, ann, op):
    """S28: Ann's own browser, and an operator's, without the page's token: whatever another site makes it send."""
    before = everything()
    for who in (ann, op):
        client = browser(who, enforce_csrf_checks=True)
        client.cookies["csrftoken"] = "x" * 32  # which another site cannot read, but the browser sends
        for route in routes():
            kind = row(route, TABLE)
            for method in UNSAFE if kind != ADMIN else ["POST"]:
                status = ask(client, method, fill(route, anns[0]))
                keys_alone = kind == SECRET or route.startswith(KEYS_ALONE)
                assert status in ({401, 404, 405, 429} if keys_alone else {403, 405}), (method, route, status)
    assert everything() == before


def test_those_whose_they_are_do_find_them(anns, ann, op):
    """The 404s above are about whose they are: the same addresses answer Ann, or for the operators' an admin."""
    with_key, admin, signed_in = ApiClient(ann), ApiClient(op, scope="admin"), browser(ann)
    walked = [route for route in of_kind(OWN, PAGE) if is_somebodys(route)]
    missing = set()
    for route in walked:  # reads first: the others change what is read
        client = signed_in if row(route, TABLE) == PAGE else with_key
        if not any(
            ask(client, method, at) not in (404, 405) for at in addresses(route, anns) for method in ("GET", "HEAD")
        ):
            missing.add(route)
    for route in sorted(missing, key=lambda route: "delete" in route):
        client = signed_in if row(route, TABLE) == PAGE else with_key
        if any(ask(client, "POST", at) not in (404, 405) for at in addresses(route, anns)):
            missing.discard(route)
    assert missing == set()
    assert ask(admin, "GET", f"/api/ingest/jobs/{anns[3]['job_id']}/") == 200
