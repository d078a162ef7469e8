"""The Studio's document (seeds 000, 001): its calls, with the key added."""

import av

from tests.faults.rig import T, balance, freeze, until

RENDER = '{"type":"RENDER","params":{"prompt":"test","seconds":1,"fps":8,"width":64,"height":64}}'
SLOW = '{"type":"RENDER","params":{"prompt":"test","seconds":60,"fps":8,"width":64,"height":64}}'


def test_submit_render_download_delete(platform, ann_calls, ann, tmp_path):
    platform.worker()
    status, job = ann_calls("POST", "/jobs", RENDER)
    assert status == 201 and job["status"] == "QUEUED"
    path = f"/jobs/{job['job_id']}"
    done = ann_calls.wait(path, lambda answer: answer["status"] == "SUCCEEDED")
    (tmp_path / "video.mp4").write_bytes(ann_calls.download(done["output_urls"][0]))
    with av.open(tmp_path / "video.mp4") as video:
        assert video.streams.video[0].frames == 8
    assert ann_calls("DELETE", path) == (200, {"job_id": job["job_id"], "deleted": True, "artifacts_cleaned": 1})
    assert ann_calls("GET", path)[0] == 404


def test_cancel_twice_and_no_output_ever(platform, ann_calls, ann):
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.worker()
    job_id = ann_calls("POST", "/jobs", SLOW)[1]["job_id"]
    ann_calls.wait(f"/jobs/{job_id}", lambda answer: answer["status"] == "RUNNING")
    for _ in range(2):
        status, job = ann_calls("POST", f"/jobs/{job_id}/cancel")
        assert (status, job["status"], job["output_urls"]) == (200, "CANCELED", [])
    assert job["error"]["code"] == "user_canceled"
    until(lambda: "lost its lease; its output is discarded" in platform.log("worker"), seconds=10)
    assert ann_calls("GET", f"/jobs/{job_id}")[1]["output_urls"] == []
    assert balance(ann) == 1000


def test_a_killed_worker_is_worker_timeout_and_the_tokens_are_back(platform, ann_calls, ann):
    """The document's rehearsal, with a kill instead of waiting; frozen, so that nobody can say that it is gone."""
    platform.env["FFMPEG"] = platform.slow_ffmpeg()
    platform.worker(slots=1)
    job_id = ann_calls("POST", "/jobs", SLOW)[1]["job_id"]
    ann_calls.wait(f"/jobs/{job_id}", lambda answer: answer["progress"] > 0)
    freeze(platform.children["worker"].pid, *platform.pool())
    platform.beat()
    failed = ann_calls.wait(f"/jobs/{job_id}", lambda answer: answer["status"] == "FAILED", seconds=T + 40)
    assert failed["error"]["code"] == "worker_timeout"
    assert balance(ann) == 1000
    log = platform.log("upkeep")
    assert "Heartbeat monitor started" in log and f"Job {job_id} timed out (last heartbeat: " in log
