"""An operation as a call: its arguments and its answer as JSON, checked on both sides against its own types."""

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from gateway.model.errors import BadInput

HEARTBEAT_S = 3.0
"""A stream with nothing to say sends an empty line this often: a silent gateway can be told from a quiet one."""

ERROR_LINE = b'{"error":'
"""How a stream's last line begins when something went wrong after its first; no item begins so."""


class Operation:
    """One operation, seen from both ends of the control socket."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self.name: str = run.__name__
        self.is_stream = inspect.isasyncgenfunction(run)

    @cached_property
    def _answer(self) -> TypeAdapter[Any]:  # made when it is needed: for all operations it takes longer than a command
        answer = get_type_hints(self.run)["return"]
        return TypeAdapter(get_args(answer)[0] if self.is_stream else answer)

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        hints = get_type_hints(self.run)
        _, *parameters = inspect.signature(self.run).parameters.values()
        fields: dict[str, Any] = {
            one.name: (hints[one.name], ... if one.default is one.empty else one.default) for one in parameters
        }
        return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)

    def encode_arguments(self, arguments: dict[str, Any]) -> bytes:
        """Return the arguments as the body of a request."""
        return self._arguments(**arguments).model_dump_json().encode()

    def decode_arguments(self, body: bytes) -> dict[str, Any]:
        """Return what `run` is called with. Raises BadInput."""
        try:
            arguments = self._arguments.model_validate_json(body)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise BadInput("invalid_arguments", f"{self.name} was asked wrongly: {problems}.") from None
        return {name: getattr(arguments, name) for name in self._arguments.model_fields}

    def encode_answer(self, answer: object) -> bytes:
        """Return an answer, or one item of a stream, as one line of JSON."""
        return self._answer.dump_json(answer)

    def decode_answer(self, line: bytes) -> Any:  # noqa: ANN401 - as typed as the function; see the caller
        """Return what `run` returned."""
        return self._answer.validate_json(line)
