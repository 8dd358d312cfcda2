"""The tables of the suite for Django: one that the tests use, and 29 like those of a real project."""

from __future__ import annotations

from django.db import models


class User(models.Model):  # type: ignore[misc,unused-ignore]  # Django has types where its stubs are installed
    """What the tests write and read."""

    name = models.CharField(max_length=50, unique=True)

    class Meta:
        """Where Django looks for the name of the application."""

        app_label = "shop"


for _number in range(1, 30):
    type(
        f"Record{_number}",
        (models.Model,),
        {
            "__module__": __name__,
            "user": models.ForeignKey(User, models.CASCADE, related_name="+"),
            "label": models.CharField(max_length=50, db_index=True),
            "Meta": type("Meta", (), {"app_label": "shop"}),
        },
    )
