"""The reference of `bench poll`: a job as a plain DRF view answers it, with our own key and middleware around it."""

import os

from django.core.asgi import get_asgi_application
from django.urls import path

os.environ |= {"DJANGO_SETTINGS_MODULE": "bench.plain_settings", "JOBSITE_PROCESS": "web"}  # with its pool
application = get_asgi_application()

from rest_framework import generics, serializers  # noqa: E402 - need the settings

from jobs.models import Job  # noqa: E402


class PlainJob(serializers.ModelSerializer):
    class Meta:
        model = Job
        fields = "__all__"


class Retrieve(generics.RetrieveAPIView):
    serializer_class = PlainJob

    def get_queryset(self):
        return Job.objects.filter(owner=self.request.user)


urlpatterns = [path("api/jobs/<uuid:pk>/", Retrieve.as_view())]
