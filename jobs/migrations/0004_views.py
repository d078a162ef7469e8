"""The read-only views of the replaced systems' documents."""

from django.db import migrations

from jobs import sql_views


def install(apps, schema_editor):
    sql_views.install(schema_editor.connection)


def remove(apps, schema_editor):
    sql_views.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("jobs", "0003_breaker")]
    operations = [migrations.RunPython(install, remove)]
