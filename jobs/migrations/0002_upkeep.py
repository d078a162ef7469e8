"""The watchmen: Beat's entries and their ticks."""

from django.db import migrations

from jobs import upkeep


def install(apps, schema_editor):
    upkeep.install(
        periodic=apps.get_model("django_celery_beat", "PeriodicTask"),
        interval=apps.get_model("django_celery_beat", "IntervalSchedule"),
        tick=apps.get_model("jobs", "Tick"),
    )


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name__in=upkeep.schedule()).delete()


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial"), ("django_celery_beat", "0019_alter_periodictasks_options")]
    operations = [migrations.RunPython(install, remove)]
