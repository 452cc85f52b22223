"""Every HTTP error has the same shape: `{"error": {"code", "message", "hint"}}`."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from typing_extensions import TypedDict

from gateway.model.errors import NeurogateError, error_document

logger = logging.getLogger(__name__)


class ErrorWords(TypedDict):
    """What happened, and what to do next."""

    code: str
    message: str
    hint: str


class Error(TypedDict):
    """Every error looks like this. Where several things were asked for at once, their `results` may stand beside it."""

    error: ErrorWords


class AllRefused(NeurogateError):
    """Several things were asked for at once, and nothing of it was done: the first error, and what came of each."""

    code = "all_refused"  # of the class; an error of it has the code of the first

    def __init__(self, first: NeurogateError, answer: dict[str, object]) -> None:
        super().__init__(first.message, hint=first.hint)
        self.code = first.code
        self.http_status = first.http_status
        self.retry_after_s = first.retry_after_s
        self.answer = answer


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def words_of(error: NeurogateError) -> ErrorWords:
    """Return what an error says, for a result among others."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def error_response(
    status: int, code: str, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an error in the documented shape."""
    return web.json_response(error_document(code, message, hint), status=status, headers=headers)


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into an answer in the documented shape."""
    try:
        return await handler(request)
    except NeurogateError as error:
        document = error_document(error.code, error.message, error.hint)
        if isinstance(error, AllRefused):
            document |= error.answer
        return web.json_response(document, status=error.http_status, headers=_headers(error))
    except web.HTTPException as error:
        return in_documented_shape(error)
    except ConnectionError:
        raise
    except Exception:
        logger.exception("request failed by a fault of ours", extra={"path": request.path})
        return error_response(500, "internal_error", "The gateway failed to handle this.", hint="See its log.")


def in_documented_shape(response: web.StreamResponse) -> web.StreamResponse:
    """Return an answer that aiohttp has made of an error in our shape, any other as it is."""
    if isinstance(response, web.HTTPRequestEntityTooLarge):
        return error_response(
            413, "too_large", "The body is larger than http.max_body_bytes.", hint="Send fewer readings at once."
        )
    if not isinstance(response, web.HTTPException):
        return response
    headers = {"Allow": response.headers["Allow"]} if "Allow" in response.headers else None
    reason = response.reason
    return error_response(response.status, reason.lower().replace(" ", "_"), reason, headers=headers)


def _headers(error: NeurogateError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.http_status == web.HTTPUnauthorized.status_code:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 11.6.1
    return headers
