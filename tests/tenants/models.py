"""A tenant has a schema of its own, and notes in it."""

from __future__ import annotations

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    auto_create_schema = False


class Domain(DomainMixin):
    pass


class Note(models.Model):
    """One of a tenant's rows; the same table is in each schema."""

    owner = models.CharField(max_length=63)
