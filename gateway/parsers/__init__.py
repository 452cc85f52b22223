"""Parsers turn what arrived into readings in the standard shape. Pure: no clock, no store, no socket."""

from gateway.parsers.standard import Parsed, parse_standard

__all__ = ["Parsed", "parse_standard"]
