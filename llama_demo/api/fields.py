"""Kinds of fields that requests are made of: numbers within the engines' bounds, and what may only be neutral."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from llama_demo.values import bounds

UNSUPPORTED = "unsupported"
"""The type of a validation error that means: the API has this, and this app does not."""


class Strict(BaseModel):
    """No unknown fields, and no text where a number is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)


def number(name: str, description: str) -> Any:
    """A field that may be left out, within the bounds that `values.Sampling` has for `name`."""
    low, high = bounds(name)
    return Field(None, ge=low, le=high, description=description)


def unsupported(problem: str) -> PydanticCustomError:
    """Says that a value cannot be honoured; `problem` is the message table's key of the reason."""
    return PydanticCustomError(UNSUPPORTED, "{problem}", {"problem": problem})


class Neutral:
    """In an annotation: only null and `values`, which change nothing, are taken, as null; `problem` as above."""

    def __init__(self, problem: str, *values: Any) -> None:
        self._problem = problem
        self._values = values

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [None, *self._values], "description": "Only a value that changes nothing: refused otherwise."}

    def _check(self, value: Any) -> None:
        if value is not None and not any(type(value) is type(one) and value == one for one in self._values):
            raise unsupported(self._problem)


class Never:
    """In an annotation: `values` are refused as unsupported before they are looked at."""

    def __init__(self, problem: str, *values: Any) -> None:
        self._problem = problem
        self._values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if isinstance(value, str) and value in self._values:
            raise unsupported(self._problem)
        return value
