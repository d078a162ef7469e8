"""Which face answers which address. The API's own addresses are in jobs/api/urls.py, the pages' in jobs/web/urls.py."""

from django.contrib import admin
from django.urls import include, path

admin.autodiscover()

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("jobs.api.urls")),
    path("", include("jobs.web.urls")),
]

handler400 = "jobs.api.errors.bad_request"
handler403 = "jobs.api.errors.permission_denied"
handler404 = "jobs.api.errors.page_not_found"
handler500 = "jobs.api.errors.server_error"
