"""Which Content-Security-Policy an answer carries: strict everywhere, a little looser where others' pages need it."""

from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest

UNFOLD = {"script-src": ["'self'", "'unsafe-eval'"], "style-src": ["'self'", "'unsafe-inline'"]}  # Alpine.js; themes
SWAGGER = {"style-src": ["'self'", "'unsafe-inline'"]}  # Swagger UI writes style attributes
DATA_IMAGES = {"img-src": ["'self'", "data:"]}  # icons in both style sheets
LOOSER = {"/admin/": UNFOLD | DATA_IMAGES, "/api/docs/": SWAGGER | DATA_IMAGES}


class PolicyMiddleware(CSPMiddleware):
    """django-csp's, with one policy for our own pages and what `LOOSER` says for those below an address."""

    def get_policy_parts(self, request: HttpRequest, response, report_only: bool = False) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        path = f"{request.path_info.rstrip('/')}/"
        for prefix, directives in LOOSER.items():
            if path.startswith(prefix) and not path.startswith("/api/docs/errors/"):
                parts.replace = directives
        return parts
