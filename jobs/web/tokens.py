"""What the account holds, and every line of its ledger."""

import re

from django.shortcuts import render

from tokens.models import Transaction

from .base import page
from .paging import Pages

OF_JOB = re.compile(r"job:([0-9a-f-]{36}):[0-9]+\Z")


@page
def tokens(request):
    """The ledger, newest first. Lines stay when their job is deleted, so a link may lead to a 404."""
    pages = Pages(Transaction.objects.filter(account_id=request.user.pk), request)
    lines = [(line, job[1] if (job := OF_JOB.match(line.reference)) else "") for line in pages.rows]
    return render(request, "web/tokens.html", {"section": "tokens", "pages": pages, "lines": lines})
