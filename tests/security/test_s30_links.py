"""S30: a link to an output is for one object and ten minutes, given to whoever may see the job, and dead with the job.

In a folder there is no link that opens without a key: the address asks who comes, and the row, each time. The test's
bucket takes any signature, so what S3 would judge is judged here by its rules (AWS Signature Version 4).
That a link is dead once the job is deleted is shown in tests/jobs/test_s3.py.
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Artifact
from tests import s3_server
from tests.clients import ApiClient, content
from tests.jobs.test_s3 import bucket  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db
FILE = b"what Ann paid for"


def address(job) -> str:
    return f"/api/jobs/{job.pk}/outputs/film.mp4/"


def opens(link: str, *, at: datetime, method: str = "GET") -> bool:
    """Whether S3 would honour a presigned link at that time: its own signature, and not past its seconds."""
    parts = urlsplit(link)
    query = dict(parse_qsl(parts.query))
    given = query.pop("X-Amz-Signature")
    made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    day, region, service, end = query["X-Amz-Credential"].split("/")[1:]
    asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    request = "\n".join([method, parts.path, asked, f"host:{parts.netloc}\n", "host", "UNSIGNED-PAYLOAD"])
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], f"{day}/{region}/{service}/{end}", hashed])
    key = f"AWS4{s3_server.SECRET}".encode()
    for word in (day, region, service, end):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, given) and at <= made + timedelta(seconds=int(query["X-Amz-Expires"]))


def test_a_bucket_link_opens_one_object_for_ten_minutes(bucket, succeeded, as_ann, as_bob):  # noqa: F811
    job = succeeded(FILE, "film.mp4", "video/mp4")
    now = timezone.now()
    for nobody in (as_bob, ApiClient()):
        refused = nobody.get(address(job))
        assert refused.status_code in (401, 404)
        assert "Location" not in refused.headers  # who comes is asked before anything is signed
    link = as_ann.get(address(job)).headers["Location"]
    assert opens(link, at=now + timedelta(seconds=590))
    assert not opens(link, at=timezone.now() + timedelta(seconds=601))
    assert not opens(link.replace("X-Amz-Expires=600", "X-Amz-Expires=60000"), at=now)
    assert not opens(link.replace("film.mp4", "other.mp4"), at=now)
    assert not opens(link.replace(str(job.pk), str(job.pk)[::-1]), at=now)
    assert not opens(link, at=now, method="PUT")


def test_a_folders_address_asks_who_comes_each_time(succeeded, as_ann, as_bob, ann):
    job = succeeded(FILE, "film.mp4", "video/mp4")
    key, secret = keys.issue(ann, "x")
    once = ApiClient(headers={"Authorization": f"Bearer {secret}"})
    assert content(once.get(address(job))) == content(as_ann.get(address(job))) == FILE
    assert (as_bob.get(address(job)).status_code, ApiClient().get(address(job)).status_code) == (404, 401)
    keys.revoke(key)
    assert once.get(address(job)).status_code == 401


def test_a_folders_address_asks_the_row_each_time(succeeded, as_ann):
    """The file is still there, as after a delete whose storage was away; without its row it is nobody's."""
    job = succeeded(FILE, "film.mp4", "video/mp4")
    stored = Artifact.objects.get(job=job)
    Artifact.objects.filter(job=job).delete()
    assert default_storage.exists(stored.key)
    assert as_ann.get(address(job)).status_code == 404


def test_what_was_refunded_gives_nothing(running, as_ann):
    """Bytes that a failed attempt had stored already: the job's tokens are back, the file is not given."""
    lease = running(max_attempts=1)
    key = f"jobs/{lease.job_id}/{lease.attempt}/film.mp4"
    Artifact.objects.create(job_id=lease.job_id, attempt=1, name="film.mp4", key=key, bytes=len(FILE), sha256="0" * 64)
    default_storage.save(key, ContentFile(FILE))
    lifecycle.fail(lease, JobError(ErrorCode.ffmpeg_error))
    assert as_ann.get(f"/api/jobs/{lease.job_id}/outputs/film.mp4/").status_code == 404
    assert as_ann.get("/api/tokens/").json()["balance"] == 1000
