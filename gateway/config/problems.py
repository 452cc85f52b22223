"""Turn what pydantic found into sentences: the key, where it came from, what is right.

A value is never repeated when its key looks secret, when it came from ${env:…}, ${file:…} or ${vault:…}, or when
it is a whole table.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.masking import MASK, looks_secret, without_credentials
from gateway.config.schema import Location, as_toml, fields_of, settings_of, table_at
from gateway.model.errors import ConfigError

_RULES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "path_type": "must be a path",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}


_SHORTEST_HIDDEN = 4  # a shorter text is no secret, and a part of many words


@dataclass(slots=True, frozen=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    message: str
    hint: str = ""


def config_error(problems: Sequence[Problem]) -> ConfigError:
    """Return one error that tells all problems."""
    if len(problems) == 1:
        return ConfigError(problems[0].message, hint=problems[0].hint)
    lines = (f"\n- {problem.message} {problem.hint}".rstrip() for problem in problems)
    return ConfigError(f"The configuration has {len(problems)} problems:{''.join(lines)}")


def explain(
    error: ValidationError,
    model: type[BaseModel],
    origins: Mapping[str, str],
    key_of: Callable[[Location], str],
    is_secret: Callable[[Location], bool] = lambda _: False,
) -> Iterator[tuple[str, Problem]]:
    """Yield (key, problem) for each complaint about `model`; `key_of` names a location for its owner.

    Besides what looks secret, nothing is repeated of what `is_secret`.
    """
    for details in error.errors(include_url=False):
        location = details["loc"]
        key = key_of(location)
        origin = origin_of(key, origins)
        where = f" in {place(origin)}" if origin else ""
        if details["type"] == "extra_forbidden":
            *parents, name = location
            siblings = table_at(model, tuple(parents))
            near = nearest(str(name), fields_of(siblings) if siblings else ())
            elsewhere = (other for other, _ in settings_of(model) if other.rpartition(".")[2] == name)
            candidates = [key_of((*parents, sibling)) for sibling in near] or list(elsewhere)
            yield key, Problem(f"Unknown key {key}{where}.", did_you_mean(candidates))
        elif details["type"] == "missing":
            table = table_at(model, location[:-1])
            field = fields_of(table).get(str(location[-1])) if table else None
            yield key, Problem(f"{key} is missing{where}.", (field and field.description) or "")
        else:
            hidden: list[str] | None = None
            if "${" in origin or looks_secret(key):
                hidden = [*_texts(details["input"])]
            elif is_secret(location):  # a table's keys are its owner's words for what is secret
                values = _texts(details["input"], with_names=False)
                hidden = [text for text in values if len(text) >= _SHORTEST_HIDDEN]
            yield key, Problem(f"{key}{where}{_complaint(details, hidden)}")


def origin_of(key: str, origins: Mapping[str, str]) -> str:
    """Return where the key came from: itself, else the first thing in it, else the table around it."""
    if key in origins:
        return origins[key]
    for name, origin in origins.items():
        if name.startswith((f"{key}.", f"{key}[")):
            return origin
    around = re.sub(r"(\.|\[)[^.\[]*$", "", key)
    return origin_of(around, origins) if around != key else ""


def place(origin: str) -> str:
    """Return an origin as it stands after "in": the file's name or the environment variable's."""
    return origin.removeprefix("file ").removeprefix("environment ")


def nearest(name: str, known: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Return the known name that was probably meant, if any."""
    return difflib.get_close_matches(name, known, n=1)


def did_you_mean(candidates: Sequence[str]) -> str:
    """Return "Did you mean a or b?", or nothing without a candidate."""
    return f"Did you mean {' or '.join(candidates)}?" if candidates else ""


def _complaint(details: ErrorDetails, hidden: list[str] | None) -> str:
    """Return how the sentence goes on after the key and its place; what is hidden is masked, and no value repeated."""
    given, context = details["input"], details.get("ctx", {})
    if rule := _RULES.get(details["type"]):
        sentence = f" {rule.format_map(context)}"
    elif details["type"] == "value_error":
        sentence = f": {context['error']}"
    else:
        sentence = re.sub(r"^: \w+ should ", " must ", f": {details['msg']}")
    if hidden is not None:
        for text in sorted(hidden, key=len, reverse=True):
            sentence = sentence.replace(text, MASK)
    elif details["type"] != "value_error" and isinstance(given, str | int | float):
        sentence += f", not {without_credentials(as_toml(given))}"
    return sentence if details["type"] == "value_error" else f"{sentence}."


def _texts(given: object, *, with_names: bool = True) -> Iterator[str]:
    """Yield what a sentence may repeat of a value: itself, and what is in it."""
    if isinstance(given, Mapping):
        for name, inner in given.items():
            yield from (*(_texts(name) if with_names else ()), *_texts(inner, with_names=with_names))
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        for inner in given:
            yield from _texts(inner, with_names=with_names)
    elif given not in (None, "", True, False):
        yield from {str(given), str(given).strip()} - {""}
