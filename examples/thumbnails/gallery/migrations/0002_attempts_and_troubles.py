"""The attempts of a picture, and samples that fail."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("gallery", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="picture",
            name="attempt",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="picture",
            name="trouble",
            field=models.CharField(
                blank=True, choices=[("", "None"), ("twice", "Twice"), ("always", "Always")], default="", max_length=10
            ),
        ),
        migrations.AddField(
            model_name="picture",
            name="version",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="picture",
            name="state",
            field=models.CharField(
                choices=[
                    ("waiting", "Waiting"),
                    ("working", "Working"),
                    ("retrying", "Retrying"),
                    ("done", "Done"),
                    ("failed", "Failed"),
                    ("dead", "Dead"),
                ],
                default="waiting",
                max_length=10,
            ),
        ),
    ]
