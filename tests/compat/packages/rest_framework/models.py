"""The models that the tests of djangochannelsrestframework use."""

from django.db import models


class TestModel(models.Model):
    """A model with an ordinary key."""

    __test__ = False

    name = models.CharField(max_length=255)


class TestModelWithCustomPK(models.Model):
    """A model whose name is its key."""

    __test__ = False

    name = models.CharField(max_length=255, primary_key=True)
    description = models.CharField(max_length=255, null=True, blank=True)
