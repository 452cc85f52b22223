"""Every HTTP error has the same shape: `{"error": {"code", "message", "hint"}}`."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from gateway.model.errors import NeurogateError, error_document

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        headers = None if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return error_response(error.http_status, error.code, error.message, hint=error.hint, headers=headers)
    except web.HTTPRequestEntityTooLarge:
        return error_response(
            413,
            "too_large",
            "The body is larger than http.max_body_bytes.",
            hint="Send fewer readings at once.",
        )
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return error_response(error.status, error.reason.lower().replace(" ", "_"), error.reason, headers=headers)
    except ConnectionError:
        raise
    except Exception:
        logger.exception("request failed by a fault of ours", extra={"path": request.path})
        return error_response(500, "internal_error", "The gateway failed to handle this.", hint="See its log.")
