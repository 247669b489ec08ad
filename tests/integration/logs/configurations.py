"""Every kind of ``LOGGING`` that Django survives."""

from __future__ import annotations

from typing import Any

STDERR = {"stderr": {"class": "logging.StreamHandler"}}
ROOT = {"handlers": ["stderr"], "level": "WARNING"}
BASE: dict[str, Any] = {"version": 1, "handlers": STDERR}
DJANGO = {"django": {"handlers": ["stderr"], "level": "INFO"}}
OURS = {"trio_channels": {"handlers": ["stderr"], "level": "INFO", "propagate": False}}
PART: dict[str, Any] = {"handlers": ["stderr"], "level": "INFO"}
KEPT = {"disable_existing_loggers": False}

#: The settings of each. Without DEBUG Django sends its own lines by mail, and prints none.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "none, DEBUG": {"DEBUG": True},
    "LOGGING_CONFIG None": {"LOGGING_CONFIG": None},
    "root, disable by default": {"LOGGING": BASE | {"root": ROOT}},
    "root, disable": {"LOGGING": BASE | {"root": ROOT, "disable_existing_loggers": True}},
    "root, keep": {"LOGGING": BASE | {"root": ROOT} | KEPT},
    "django only, disable": {"LOGGING": BASE | {"loggers": DJANGO}},
    "django only, keep, DEBUG": {"DEBUG": True, "LOGGING": BASE | {"loggers": DJANGO} | KEPT},
    "ours, disable": {"LOGGING": BASE | {"loggers": OURS}},
    "ours and root, keep": {"LOGGING": BASE | {"loggers": OURS, "root": ROOT} | KEPT},
    "one of ours and root, disable": {
        "LOGGING": BASE | {"loggers": {"trio_channels.consumer": {"level": "ERROR"}}, "root": ROOT}
    },
    "parts of ours, keep": {
        "LOGGING": BASE | {"loggers": dict.fromkeys(("trio_channels.routing", "trio_channels.layers"), PART)} | KEPT
    },
    "hypercorn and root, disable": {
        "LOGGING": BASE | {"loggers": {"hypercorn.error": {"handlers": ["stderr"], "propagate": False}}, "root": ROOT}
    },
    "of the documentation": {
        "LOGGING": {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"connection": {"()": "trio_channels.log.ConnectionFilter"}},
            "formatters": {
                "line": {"format": "%(asctime)s [%(process)d #%(connection)s] %(levelname)s %(name)s: %(message)s"}
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["connection"], "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"trio_channels.access": {"level": "INFO"}},
        }
    },
}


def shows_djangos_own(name: str) -> bool:
    """Whether Django itself prints the exception of a view: its logger reaches a handler, and is not disabled."""
    settings = CONFIGURATIONS[name]
    logging = settings.get("LOGGING")
    if settings.get("LOGGING_CONFIG", "") is None:
        return True  # Python's last resort
    if logging is None:
        return bool(settings.get("DEBUG"))
    named = "django" in logging.get("loggers", {})
    return named or ("root" in logging and logging.get("disable_existing_loggers") is False)
