"""The admin's and the docs' own files, served by the web process itself."""

from django.http import HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise answers with a file to be streamed, which Django under ASGI warns about and reads whole anyway. These
    files are small, so they are read here."""

    @staticmethod
    def serve(static_file, request):
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file as file:
                content = file.read()
        response = HttpResponse(content, status=int(found.status))
        del response["Content-Type"]  # a 304 has none
        for name, value in found.headers:
            response[name] = value
        return response
