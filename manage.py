#!/usr/bin/env python
"""Django's command line, for Jobsite."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
    for word in sys.argv:
        if any("\ud800" <= sign <= "\udfff" for sign in word) and not os.path.exists(word):  # a file may be called so
            sys.exit(f"{word!a} cannot be read as text in this locale; give it in UTF-8.")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a terminal may not know an arrow
    try:
        execute_from_command_line(sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: what it did is done, and nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(1)
    except ImproperlyConfigured as wrong:  # a setting: the sentence names it, a traceback would bury it
        sys.exit(str(wrong))
    except OperationalError as wrong:  # it is away, locked or not migrated
        sys.exit(f"The database does not do it: {' '.join(str(wrong).split())}. manage.py doctor says more.")
