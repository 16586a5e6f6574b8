"""Requests, responses and events, to and from JSON."""

from typing import Any, Final, TypeVar

import msgspec

from trapline.errors import UsageError
from trapline.typed import one_line, shortened

_T = TypeVar("_T")
_NOTHING: Final = msgspec.Raw(b"{}")


class Request(msgspec.Struct, tag_field="type", tag="request"):
    """What a client asks for."""

    seq: int
    command: str
    arguments: msgspec.Raw = _NOTHING


class Response(msgspec.Struct, tag_field="type", tag="response", omit_defaults=True):
    """The answer to a request."""

    request_seq: int
    success: bool
    command: str
    message: str | None = None
    """Why it failed."""
    body: Any = None
    seq: int = 0
    """Set when it is sent."""


class Event(msgspec.Struct, tag_field="type", tag="event", omit_defaults=True):
    """What a client is told without having asked."""

    event: str
    body: Any = None
    seq: int = 0
    """Set when it is sent."""


Message = Response | Event

_requests: Final = msgspec.json.Decoder(Request)
_encoder: Final = msgspec.json.Encoder()


class ErrorMessage(msgspec.Struct, rename="camel"):
    """The protocol's `Message`: what a user is shown. Texts in braces would be variables."""

    id: int
    format: str
    show_user: bool = True


class ErrorBody(msgspec.Struct):
    """The body of a response that says why a request failed."""

    error: ErrorMessage


def read_request(body: bytes) -> Request:
    """Return the request in a message. Raises UsageError for anything else."""
    try:
        return _requests.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the client sent what is not a request: {error}") from None


def read_arguments(request: Request, kind: type[_T]) -> _T:
    """Return the arguments of a request. Raises UsageError where they are not what the protocol wants."""
    data = bytes(request.arguments)
    try:
        return msgspec.json.decode(_NOTHING if data == b"null" else data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the arguments of {request.command}: {error}") from None


def unknown_arguments(request: Request, kind: type[msgspec.Struct]) -> list[str]:
    """Return the names of arguments that are of no use, as they may be misspelt. The request could be read."""
    given: dict[str, msgspec.Raw] = msgspec.json.decode(request.arguments, type=dict[str, msgspec.Raw])
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    return [name for name in given if name not in known]


def refusal(request: Request, text: str) -> Response:
    """Return the response that says why a request failed."""
    text = one_line(text)
    shown = text.replace("{", "(").replace("}", ")")  # a client would look for variables of these names
    body = ErrorBody(ErrorMessage(1, shown))
    return Response(request.seq, False, shortened(request.command), text, body)


def encode(message: Message, seq: int) -> bytes:
    """Return a message as JSON."""
    message.seq = seq
    return _encoder.encode(message)
