"""Mail: a link and nothing secret, by the server that settings.EMAIL_URL names.

smtp://user:password@host:port (plain, for a server on this host), smtp+tls:// (STARTTLS), smtps:// (TLS at once);
`?from=` names the sender, else agentstate@<host of PUBLIC_URL>.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

TIMEOUT_S = 10
PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Server:
    scheme: str
    host: str
    port: int
    user: str
    password: str
    sender: str


def server() -> Server | None:
    """The mail server, or None when there is none. Raises: ImproperlyConfigured."""
    url = str(getattr(settings, "EMAIL_URL", ""))
    return parse(url) if url else None


def parse(url: str) -> Server:
    """Raises: ImproperlyConfigured."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ImproperlyConfigured("EMAIL_URL must be smtp://, smtp+tls:// or smtps:// with a host.")
    ours = urlsplit(settings.PUBLIC_URL).hostname or "localhost"
    return Server(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        sender=parse_qs(parts.query).get("from", [f"agentstate@{ours}"])[0],
    )


def send(server: Server, *, to: str, subject: str, text: str, message_id: str) -> None:
    """Hand one mail to the server. The same message_id tells a reader's program that two are one.

    Raises: OSError, smtplib.SMTPException (which is one).
    """
    headers = {"Message-ID": f"<{message_id}@{server.sender.rpartition('@')[2]}>", "Auto-Submitted": "auto-generated"}
    backend = EmailBackend(
        host=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        use_tls=server.scheme == "smtp+tls",
        use_ssl=server.scheme == "smtps",
        timeout=TIMEOUT_S,
    )
    message = EmailMessage(subject=subject, body=text, from_email=server.sender, to=[to], headers=headers)
    backend.send_messages([message])
