"""Every refusal of the API is an RFC 9457 problem, whoever refused: ours, ninja, pydantic, Django or the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError, DataError
from django.db.utils import InterfaceError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from agentstate.core.errors import DomainError, Invalid, LockTimeout, NotFound, TooLarge, Unauthorised, Unavailable
from agentstate.core.limits import MIB, PAYLOAD_BYTES_MAX
from agentstate.db import sql
from agentstate.http import problems

log = structlog.get_logger(__name__)
BODY_BYTES_MAX = PAYLOAD_BYTES_MAX + MIB  # the largest payload and what stands around it


class Malformed(Invalid):
    """The request cannot be read."""

    code = "malformed"
    http_status = 400


class MethodNotAllowed(DomainError):
    """This address does not take that method."""

    code = "method-not-allowed"
    http_status = 405


class Crashed(DomainError):
    """Something went wrong here, not with your request."""

    code = "internal"


def install(api: NinjaAPI) -> None:
    """Make `api` answer every exception as a problem."""
    api.add_exception_handler(Exception, answer)
    for known in (DomainError, ValidationError, AuthenticationError, HttpError, Http404, DatabaseError, InterfaceError):
        api.add_exception_handler(known, answer)


def answer(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    """The problem of any exception; one that is nobody's fault but ours is logged with its trace."""
    assert isinstance(error, Exception)
    found = translate(error)
    if isinstance(found, Crashed):
        log.error("api.crashed", path=request.path, method=request.method, exc_info=error)
    return problems.response(found, request)


def translate(error: BaseException) -> DomainError:
    if isinstance(error, HttpError) and isinstance(error.__cause__, Exception):
        return translate(error.__cause__)  # ninja wraps what our parser raised
    if isinstance(error, Invalid) and error.data.get("malformed"):
        return Malformed(error.message)
    if isinstance(error, DomainError):
        return error
    if isinstance(error, ValidationError):
        return _invalid(error.errors)
    if isinstance(error, AuthenticationError):
        return Unauthorised("Send an API key: `Authorization: Bearer <key>`.")
    if isinstance(error, Http404):
        return NotFound()
    if isinstance(error, RequestDataTooBig):
        return too_large()
    return _of_database(error) or Crashed("Something went wrong here. Report the request id if it stays.")


def _of_database(error: BaseException) -> DomainError | None:
    if isinstance(error, DataError):
        return Invalid("A value is too long or too large for where it is kept.")
    if sql.is_held(error):
        return LockTimeout(retry_after_s=1)
    if sql.is_lost(error):
        return Unavailable("The database does not answer; try again shortly.", retry_after_s=1)
    return None


def too_large() -> TooLarge:
    return TooLarge(
        f"The body is larger than {BODY_BYTES_MAX:,} bytes. Store large values elsewhere and send their address."
    )


def _invalid(errors: Sequence[Mapping[str, Any]]) -> Invalid:
    """All faults of a validation; the first one is the problem's own field and detail."""
    faults = [{"field": _pointer(each["loc"]), "detail": _sentence(each)} for each in errors]
    first = faults[0]
    if len(faults) == 1:
        return Invalid(first["detail"], field=first["field"])
    return Invalid(first["detail"], field=first["field"], faults=faults)


def _pointer(loc: Sequence[Any]) -> str:
    """("body", "wanted", "agent") -> /agent; ("query", "state") -> state. The parameter's name is no level."""
    source, *path = [str(part) for part in loc]
    if source != "body":
        return path[-1] if path else source
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path[1:])


def _sentence(each: Mapping[str, Any]) -> str:
    if each["type"] == "extra_forbidden":
        return f"There is no field {str(each['loc'][-1])!r} here."
    if each["type"] == "missing":
        return f"The field {str(each['loc'][-1])!r} is missing."
    text = str(each["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else text + "."
