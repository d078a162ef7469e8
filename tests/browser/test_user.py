"""The user's pages in a browser, through the real stack: submit, watch, cancel, refund; by keyboard; without
JavaScript."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests import media_files
from tests.browser.stack import complaints
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)  # the first one boots the platform


@pytest.fixture
def ann(signed_in) -> Iterator[Page]:
    """A page of Ann's, on a desktop, by day. It fails the test for any error in the browser's console."""
    yield from _watched(signed_in("ann"))


@pytest.fixture
def op(signed_in) -> Iterator[Page]:
    """The same of the operator's."""
    yield from _watched(signed_in("op"))


def _watched(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    wrong = complaints(page)
    yield page
    context.close()
    assert wrong == []


def balance(page: Page) -> int:
    return int(page.inner_text("#balance"))


def moves(page: Page) -> None:
    """Wait until the tab shows another percentage than now."""
    title = page.title()
    expect(page).not_to_have_title(title)
    assert "%" in page.title()


def cook(page: Page, seconds: float, price: int = 8) -> None:
    """Submit a KITCHEN job through its form."""
    page.goto("/my/jobs/new/KITCHEN/")
    page.fill("#seconds", str(seconds))
    page.fill("#price", str(price))
    page.click("#submit")
    page.wait_for_url(re.compile("/my/jobs/[0-9a-f-]{36}/"))


def test_a_render_is_priced_submitted_watched_and_shown(ann):
    ann.goto("/my/jobs/")
    before = balance(ann)
    ann.click("nav >> text=New job")
    ann.click("text=RENDER")
    ann.fill("#prompt", "a quiet harbour at dawn")
    ann.fill("#seconds", "3")
    ann.fill("#width", "320")
    ann.fill("#height", "180")
    expect(ann.locator("#price")).to_contain_text("3 tokens")
    ann.click("#submit")
    video = ann.locator("video")
    expect(video).to_be_visible(timeout=60_000)
    assert (
        ann.evaluate(
            "new Promise(done => { const v = document.querySelector('video');"
            " v.readyState ? done(v.videoWidth) : v.onloadedmetadata = () => done(v.videoWidth) })"
        )
        == 320
    )
    expect(ann).to_have_title("Succeeded · RENDER · Jobsite")
    ann.goto("/my/tokens/")
    assert balance(ann) == before - 3
    expect(ann.locator("tbody tr").first).to_contain_text("-3")


def test_a_bar_moves_by_events_and_a_cancel_gives_the_tokens_back(ann):
    ann.goto("/my/jobs/")
    before = balance(ann)
    polls = []
    ann.on("request", lambda request: "/live/" in request.url and polls.append(request.url))
    cook(ann, 60)
    expect(ann.locator("#progress progress")).to_be_visible()
    moves(ann)
    moves(ann)
    assert polls
    ann.wait_for_function("stream.readyState === 1")
    expect(ann.locator("#icon")).to_have_attribute("href", re.compile(r"^/my/progress/\d+\.svg$"))
    expect(ann.locator("#cancel")).to_have_text("Cancel (8 tokens back)")
    ann.click("#cancel")
    expect(ann.locator(".messages")).to_have_text("Cancelled: 8 tokens back.")
    assert balance(ann) == before
    ann.goto("/my/tokens/")
    expect(ann.locator("tbody tr").first).to_contain_text("+8")


def test_without_the_stream_polling_is_as_good_and_the_end_comes_by_itself(ann):
    ann.route("**/events/", lambda route: route.abort())
    cook(ann, 20)
    expect(ann.locator("#progress progress")).to_be_visible()
    moves(ann)
    ann.focus("#cancel")
    moves(ann)  # the button was swapped meanwhile
    assert ann.evaluate("document.activeElement.id") == "cancel"
    expect(ann.locator(".tag")).to_have_text("succeeded")
    expect(ann).to_have_title("Succeeded · KITCHEN · Jobsite")
    expect(ann.locator("pre")).to_contain_text("attempt 1")
    expect(ann.locator("#icon")).to_have_attribute("href", ann.get_attribute("#icon", "data-plain"))


def test_the_list_keeps_itself_up_to_date(ann, signed_in):
    ann.goto("/my/jobs/")
    other = signed_in("ann").new_page()
    cook(other, 30)
    expect(ann.locator("tbody tr").first.locator(".tag")).to_have_text("running")
    other.click("#cancel")
    expect(ann.locator("tbody tr").first.locator(".tag")).to_have_text("cancelled")
    other.context.close()


def test_a_job_is_submitted_with_the_keyboard_alone(ann):
    ann.goto("/my/jobs/")
    ann.keyboard.press("Tab")
    assert ann.evaluate("document.activeElement.className") == "skip"
    tab_to(ann, "New job")
    ann.keyboard.press("Enter")
    ann.wait_for_url("**/my/jobs/new/")
    tab_to(ann, "KITCHEN")
    ann.keyboard.press("Enter")
    ann.wait_for_url("**/KITCHEN/")
    tab_to(ann, "#price", of="input")
    ann.keyboard.press("Control+a")
    ann.keyboard.type("5")
    expect(ann.locator("aside")).to_contain_text("5 tokens")
    tab_to(ann, "Submit")
    ann.keyboard.press("Enter")
    ann.wait_for_url(re.compile("/my/jobs/[0-9a-f-]{36}/"))
    expect(ann.locator(".tag")).to_have_text("succeeded")


def tab_to(page: Page, wanted: str, of: str = "a, button") -> None:
    """Press Tab until something with this text, or `#id`, has the focus, and see that it is visible that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate("[document.activeElement.innerText, '#' + document.activeElement.id]")
        if any(part.startswith(wanted) for part in found if part):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"no way to {wanted} by Tab")


def test_clips_are_brought_at_once_ordered_and_refused_by_name(ann):
    ann.goto("/my/jobs/new/STITCH/")
    clips = [{"name": f"{name}.mp4", "mimeType": "video/mp4", "buffer": media_files.clip()} for name in ("one", "two")]
    ann.set_input_files("#clips", [*clips, {"name": "notes.mp4", "mimeType": "video/mp4", "buffer": b"no video"}])
    names = ann.locator(".files .name")
    expect(names).to_have_count(2)
    expect(names.first).to_contain_text("one.mp4")
    expect(ann.locator("#clips-coming")).to_contain_text("notes.mp4: The file is not a video")
    expect(ann.locator("#price")).to_contain_text("1 token")
    ann.click("#up-clips-1")
    expect(names.first).to_contain_text("two.mp4")
    expect(ann.locator("#clips-coming")).to_contain_text("notes.mp4: The file is not a video")
    ann.click("#submit")
    expect(ann.locator("video")).to_be_visible(timeout=60_000)


def test_a_submit_leaves_no_file_behind_that_is_still_coming(ann):
    held = []
    ann.route("**/api/uploads/", lambda route: held.append(route))
    ann.goto("/my/jobs/new/INGEST/")
    film = {"name": "film.mp4", "mimeType": "video/mp4", "buffer": media_files.clip()}
    ann.set_input_files("input[type=file]", film)
    ann.click("#submit")
    expect(ann.locator("progress")).to_be_visible()
    until(lambda: held or ann.wait_for_timeout(50))  # it is seen before the request is
    held.pop().continue_()
    expect(ann.locator("#price")).to_contain_text("Free")
    ann.click("#submit")
    expect(ann).to_have_url(re.compile("/my/jobs/[0-9a-f-]{36}/"))


def test_a_reload_after_a_secret_was_shown_makes_no_other(ann):
    ann.goto("/my/keys/")
    ann.fill("[name=name]", "reloaded")
    ann.click("text=Make the key")
    expect(ann.locator(".secret")).to_be_visible()
    ann.reload()
    expect(ann.locator(".secret")).to_have_count(0)
    expect(ann.locator("tbody tr", has_text="reloaded")).to_have_count(1)


def test_without_javascript_all_of_it_works(signed_in):
    context = signed_in("ann", java_script_enabled=False)
    page = context.new_page()
    page.goto("/my/jobs/new/KITCHEN/")
    page.fill("#price", "3")
    page.fill("#seconds", "60")
    page.click("text=Show the price")
    expect(page.locator("#price").last).to_contain_text("3 tokens")
    page.click("#submit")
    expect(page.locator("#state")).to_have_text("How it stands")
    page.click("#cancel")
    expect(page.locator(".messages")).to_have_text("Cancelled: 3 tokens back.")
    page.goto("/my/jobs/new/STITCH/")
    page.set_input_files("#clips", {"name": "one.mp4", "mimeType": "video/mp4", "buffer": media_files.clip()})
    page.click("#submit")
    expect(page.locator("#clips-error")).to_contain_text("at least 2")
    expect(page.locator(".files .name")).to_contain_text("one.mp4")
    context.close()


def test_the_policy_refuses_what_gets_in_all_the_same(signed_in):
    context = signed_in("ann")
    page = context.new_page()
    refused = complaints(page)
    page.goto("/my/jobs/")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.stolen = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.stolen = true' style='color:red'>");
    }""")
    until(lambda: sum("Content Security Policy" in line for line in refused) >= 2 or page.wait_for_timeout(50))
    page.wait_for_timeout(300)
    assert page.evaluate("window.stolen") is None
    context.close()


def test_the_operators_pages_and_the_api_documentation_load_within_their_policies(op):
    op.goto("/api/docs/")
    expect(op.locator(".opblock").first).to_be_visible()
    for address in ("/admin/", "/admin/jobs/job/", "/admin/jobs/apikey/", "/admin/auth/user/"):
        op.goto(address)
        op.wait_for_timeout(200)
