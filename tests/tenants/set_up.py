"""``python -m tests.tenants.set_up ada grace ...``: make the tenants, each with a domain, a schema and notes in it."""

from __future__ import annotations

import sys

import django

NOTES = 3


def main(names: list[str]) -> None:
    django.setup()
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection
    from django_tenants.utils import schema_context

    from .models import Domain, Note, Tenant

    with connection.schema_editor() as editor:
        for model in (ContentType, Tenant, Domain):
            editor.create_model(model)
    for name in names:
        tenant = Tenant.objects.create(schema_name=name)
        Domain.objects.create(domain=f"{name}.localhost", tenant=tenant)
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE SCHEMA "{name}"')
        with schema_context(name):
            with connection.schema_editor() as editor:
                editor.create_model(Note)
            Note.objects.bulk_create(Note(owner=name) for _ in range(NOTES))


if __name__ == "__main__":
    main(sys.argv[1:])
