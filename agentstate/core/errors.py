"""One tree of operating errors. Programmer errors are assert or TypeError and never land here.

DomainError
├── Invalid (422)               a value the caller can mend; names the field
│   ├── TooLarge (413)
│   └── NonDeterminism (422)    the agent asked for another step than the one recorded
├── NotFound (404)              absent, or not yours: the same answer
├── Forbidden (403)             signed in, but the role or scope does not cover it
├── Unauthorised (401)
├── Conflict (409)              somebody was first; carries who and what
│   └── Fenced (409)            the lease of this run belongs to somebody else
├── Corrupt (500)               stored bytes do not verify; names the row
└── Unavailable (503)           try again after retry_after_s
    └── LockTimeout (503)
"""

from __future__ import annotations

from typing import Any


class DomainError(Exception):
    """Something went wrong that a person can act on."""

    code = "error"
    http_status = 500

    def __init__(self, message: str = "", *, field: str = "", **data: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        self.data = data
        super().__init__(self.message)


class Invalid(DomainError):
    """The value cannot be used."""

    code = "invalid"
    http_status = 422


class TooLarge(Invalid):
    """The value is larger than is kept here."""

    code = "too-large"
    http_status = 413


class NonDeterminism(Invalid):
    """The agent asked for another step than the one recorded."""

    code = "non-determinism"


class NotFound(DomainError):
    """There is nothing here by that name, or it is not yours."""

    code = "not-found"
    http_status = 404


class Forbidden(DomainError):
    """Your role or key does not allow this."""

    code = "forbidden"
    http_status = 403


class Unauthorised(DomainError):
    """Sign in, or send a valid API key."""

    code = "unauthorised"
    http_status = 401


class Conflict(DomainError):
    """Somebody else was first."""

    code = "conflict"
    http_status = 409


class Fenced(Conflict):
    """The lease of this run has ended or belongs to another worker; stop at once."""

    code = "fenced"


class Corrupt(DomainError):
    """Stored bytes do not verify."""

    code = "corrupt"


class Unavailable(DomainError):
    """The service cannot do this now; try again shortly."""

    code = "unavailable"
    http_status = 503


class LockTimeout(Unavailable):
    """Another transaction holds this row; try again shortly."""

    code = "lock-timeout"
