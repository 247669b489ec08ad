"""Settings of the process that serves the site of many tenants."""

import json
import os

SECRET_KEY = "only for tests: nothing that this key signs is of any worth"
ALLOWED_HOSTS = [".localhost"]
USE_TZ = True
ROOT_URLCONF = "tests.tenants.views"

SHARED_APPS = ["django_tenants", "tests.tenants", "django.contrib.contenttypes"]
TENANT_APPS = ["tests.tenants"]
INSTALLED_APPS = [*SHARED_APPS, "trio_channels"]
TENANT_MODEL = "tenants.Tenant"
TENANT_DOMAIN_MODEL = "tenants.Domain"
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware", "django.middleware.common.CommonMiddleware"]

DATABASES = {"default": {**json.loads(os.environ["TESTS_DATABASE"]), "ENGINE": "django_tenants.postgresql_backend"}}
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TRIO_CHANNELS = json.loads(os.environ["TESTS_TRIO_CHANNELS"])
