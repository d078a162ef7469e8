"""The pages of the API's documentation, all served from here."""

from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from ..errors import ErrorCode


class SchemaView(SpectacularAPIView):
    http_method_names = ["get", "head"]


class SwaggerView(SpectacularSwaggerSplitView):
    http_method_names = ["get", "head"]


@require_safe
def errors(request):
    """Every error code: what it means and what to do."""
    codes = [(code.name, code.row) for code in ErrorCode]
    return render(request, "api/errors.html", {"codes": codes})
