"""Is anything wrong? `health`'s judgement as one sentence, for every face, and the admin page where it is put right."""

from collections.abc import Sequence
from dataclasses import dataclass

from . import cleanup, policies
from .health import Check
from .models import Alert

MOST = 10  # stuck jobs that are counted
GREEN, AMBER, RED = "green", "amber", "red"
RULES = [  # worst first: the beginning of a check's code, what it means, the admin's page, the button
    ("database", "The database does not answer", "", ""),
    ("migrations", "The database is older than the program", "", ""),
    ("ledger", "Balances and ledger differ", "tokens_account_changelist", "See the accounts"),
    ("storage", "The storage refuses files", "", ""),
    ("disk", "The disk is nearly full, so no new jobs are taken", "jobs_cleanuprun_changelist", ""),
    ("broker", "The broker does not answer", "", ""),
    ("deaf_", "The workers of a queue hear nothing", "jobs_slot_changelist", "See the workers"),
    ("worker_", "A queue has no worker", "jobs_slot_changelist", "See the workers"),
    ("tick_", "A watchman is late", "jobs_tick_changelist", "See the watchmen"),
]
KNOWN = tuple(beginning for beginning, *_ in RULES)
TOLD = [("paused_", "The operator holds a queue", "jobs_pause_changelist", "Let it go on")]
TOLD += [("breaker_", "An outside service is left alone", "jobs_breaker_changelist", "See the breakers")]


@dataclass(frozen=True)
class Verdict:
    """`page` is a URL name of the admin where the fix is, or empty; `button` what its link says. If it `acts`, the page
    takes an operator's POST."""

    level: str
    sentence: str
    page: str = ""
    button: str = ""
    acts: bool = False


def now(checks: Sequence[Check]) -> Verdict:
    """The verdict of `checks`, of the alerts that last and of what is stuck; of the checks alone without a database."""
    raised: list[str] = []
    stuck = 0
    if all(check.ok for check in checks if check.code == "database"):
        raised = list(
            Alert.objects.filter(began_at__isnull=False).order_by("began_at").values_list("detail", flat=True)
        )
        stuck = cleanup.find_stuck(policies.patience()).order_by()[: MOST + 1].count()
    return judge(checks, raised, stuck=stuck)


def judge(checks: Sequence[Check], alerts: Sequence[str] = (), *, stuck: int = 0) -> Verdict:
    """The worst of what was found: red as /health is red, amber for what is told but not red. `alerts` are
    sentences, `stuck` is how many jobs are, counted to MOST."""
    for beginning, words, page, button in RULES:
        bad = [check for check in checks if not check.ok and check.code.startswith(beginning)]
        if bad:
            named = ", ".join(check.code.removeprefix(beginning) for check in bad if check.code != beginning)
            more = sum(not check.ok for check in checks) - len(bad)
            also = f" {more} more {'thing is' if more == 1 else 'things are'} wrong." if more else ""
            why = f" ({bad[0].detail})" if bad[0].detail else ""
            return Verdict(RED, f"{words}{f': {named}' if named else ''}{why}.{also}", page, button)
    if other := [check for check in checks if not check.ok and not check.code.startswith(KNOWN)]:
        return Verdict(RED, f"{other[0].code} is not well. {other[0].detail}".strip())
    if alerts:
        return Verdict(AMBER, alerts[0], "jobs_alert_changelist", "See the alerts")
    if stuck:
        number = f"{min(stuck, MOST)}{'+' if stuck > MOST else ''} job{'' if stuck == 1 else 's'}"
        words = (
            f"Stuck: {number}. The next cleanup ends {'its attempt' if stuck == 1 else 'their attempts'}; you can now."
        )
        return Verdict(AMBER, words, "jobs_job_dry_run", "Show what would be done", acts=True)
    for beginning, words, page, button in TOLD:
        for check in checks:
            if check.code.startswith(beginning) and check.detail != "closed":
                name = check.code.removeprefix(beginning)
                return Verdict(AMBER, f"{words}: {name}, {check.detail}.", page, button)
    return Verdict(GREEN, "All is well.")
