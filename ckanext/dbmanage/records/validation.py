"""CKAN's validation of stored datasets, the same but remembered by schema.

Core's `_validate` works out again for each dataset what depends on the schema alone, by
lists that grow with the square of the keys. `faster` puts equals of it and of
`unflatten` in their place for this process; core's own tests of validation pass with
them. Knows CKAN's validation, and nothing of datasets.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ckan.lib.navl.dictization_functions as core
import ckan.logic.validators as core_s
from ckan.lib.navl.dictization_functions import DataError, Invalid, StopOnError, missing
from ckan.logic import get_validator

Key = tuple[Any, ...]

#: in a context: errors are thrown away, so what can only find one is left out
ONLY_VALUES = "dbmanage_only_values"
_REMEMBERED = 64


@contextmanager
def faster() -> Iterator[bool]:
    """Validates faster inside; yields whether it does: another core stays as it is."""
    before = getattr(core, "_validate", None), getattr(core, "unflatten", None)
    if None in before:
        yield False
        return
    core._validate, core.unflatten = _validate, _unflatten
    try:
        yield True
    finally:
        core._validate, core.unflatten = before  # type: ignore[assignment]


class FixedSchema(dict):  # type: ignore[type-arg]
    """A schema that nobody changes, so that it is compiled once."""

    compiled: _Schema | None = None


class _Errors(dict):  # type: ignore[type-arg]
    """Errors that nobody will read: none until one is asked for."""

    def __missing__(self, key: Key) -> list[Any]:
        found = self[key] = []
        return found


class _Schema:
    """What depends on a schema alone."""

    def __init__(self, schema: dict[str, Any], only_values: bool) -> None:
        flat = core.flatten_schema(schema)
        self.prefixes = {key[:-1] for key in flat}
        self.initials = {key[:n] for key in flat for n in range(len(key) + 1)}
        self._schema = schema
        self._left_out = _error_finders() if only_values else ()
        self._levels: dict[Key, _Level] = {}
        self.junk = self.prepared(schema.get("__junk", ()))

    def level(self, path: Key) -> _Level:
        """The part of the schema below a path of names."""
        found = self._levels.get(path)
        if found is None:
            below = self._schema
            for name in path:
                below = below[name]
            found = self._levels[path] = _Level(below, self)
        return found

    def prepared(self, validators: Any) -> list[tuple[Any, int]]:
        """Validators and the number of their arguments."""
        return [
            (each, _arguments(each))
            for each in validators
            if each not in self._left_out
        ]


class _Level:
    """The keys of one part of a schema, and their validators by the run they are in."""

    def __init__(self, below: dict[str, Any], schema: _Schema) -> None:
        self.keys = {key for key, value in below.items() if isinstance(value, list)}
        self.plain = [key for key in self.keys if not key.startswith("__")]
        self.runs = {
            run: [
                (key, validators)
                for key in sorted(self.keys)
                if (key == run if run else not key.startswith("__"))
                and (validators := schema.prepared(below[key]))
            ]
            for run in ("__before", "", "__extras", "__after")
        }


def _arguments(validator: Any) -> int:
    try:
        return validator.__code__.co_argcount
    except AttributeError:
        return -1  # core names it in an error of its own


def _error_finders() -> tuple[Any, ...]:
    # names and keys of extras are unique by the tables that they come from; what a
    # plugin has put in the place of core's may do more than look
    found = map(get_validator, ("duplicate_extras_key", "package_name_validator"))
    return tuple(each for each in found if each.__module__ == core_s.__name__)


_schemas: dict[Any, _Schema] = {}


def _compiled(schema: dict[str, Any], only_values: bool) -> _Schema:
    if isinstance(schema, FixedSchema) and only_values:
        schema.compiled = schema.compiled or _Schema(schema, only_values)
        return schema.compiled
    signature = (only_values, _signature(schema))
    found = _schemas.get(signature)
    if found is None:
        if len(_schemas) >= _REMEMBERED:
            _schemas.clear()
        # a copy: some plugins change their schema while it is used
        found = _schemas[signature] = _Schema(_copied(schema), only_values)
    return found


def _copied(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _copied(value) if isinstance(value, dict) else list(value)
        for key, value in schema.items()
        if isinstance(value, (dict, list))
    }


def _signature(schema: dict[str, Any]) -> Key:
    return tuple(
        [
            (key, _signature(value))
            if isinstance(value, dict)
            else (key, tuple(map(_identity, value)))
            for key, value in schema.items()
            if isinstance(value, (dict, list))
        ]
    )


def _identity(validator: Any) -> Any:
    """What a validator is, also when it is made anew at each call: `one_of([…])`.

    Two of one identity do the same. The compiled schema holds the validator, so that no
    other one gets its `id`.
    """
    if validator.__class__ is not types.FunctionType:
        try:
            hash(validator)
        except TypeError:
            return id(validator)
        return validator
    if not validator.__closure__ or validator.__kwdefaults__:
        return validator
    parts: list[Any] = [validator.__code__]
    try:
        for value in (
            *(validator.__defaults__ or ()),
            *(cell.cell_contents for cell in validator.__closure__),
        ):
            parts += _distinct(value)
    except ValueError:  # of another kind, or a cell that is not filled yet
        return validator
    return tuple(parts)


def _distinct(value: Any) -> tuple[Any, Any]:
    """What no other value has: 1 is neither True nor 1.0 here."""
    if value.__class__ is list and all(each.__class__ is str for each in value):
        return list, tuple(value)
    kind = value.__class__
    if kind in (str, int, bool, float, type(None)) or kind.__eq__ is object.__eq__:
        return kind, value
    raise ValueError(value)


def _validate(
    flat: dict[Key, Any], schema: dict[str, Any], context: Any
) -> tuple[dict[Key, Any], dict[Key, Any]]:
    """As core's: the converted data, and the errors by key."""
    only_values = bool(context.get(ONLY_VALUES))
    known = _compiled(schema, only_values)
    data = dict(flat)
    by_parent: dict[Key, list[Key]] = {}
    for key in flat:
        by_parent.setdefault(key[:-1], []).append(key)
    parents: set[Key] = {()}
    for parent in sorted(by_parent, key=_order):
        if parent[::2] in known.prefixes and parent[:-2] in parents:
            parents.add(parent)
    levels = [(each, known.level(each[::2])) for each in sorted(parents, key=_order)]
    errors: dict[Key, list[Any]] = _Errors()
    if not only_values:
        errors = {(*parent, key): [] for parent, level in levels for key in level.keys}
    junk = {}
    for parent, keys in by_parent.items():
        names = known.level(parent[::2]).keys if parent in parents else ()
        extras = {}
        for key in keys:
            if key[-1] in names:
                continue
            if key[::2] in known.initials and data[key] != []:
                raise DataError(
                    "Only lists of dicts can be placed against subschema "
                    f"{key}, not {type(data[key])}"
                )
            if parent in parents:
                extras[key[-1]] = data.pop(key)
            else:
                junk[key] = data.pop(key)
        if extras:
            data[(*parent, "__extras")] = extras
    if junk:
        data[("__junk",)] = junk
    for parent, level in levels:
        for name in level.plain:
            data.setdefault((*parent, name), missing)
    for run in ("__before", "", "__extras"):
        for parent, level in levels:
            for name, validators in level.runs[run]:
                _convert(validators, (*parent, name), data, errors, context)
    for parent, level in reversed(levels):
        for name, validators in level.runs["__after"]:
            _convert(validators, (*parent, name), data, errors, context)
    _convert(known.junk, ("__junk",), data, errors, context)
    return data, errors


def _convert(
    validators: list[tuple[Any, int]],
    key: Key,
    data: dict[Key, Any],
    errors: dict[Key, Any],
    context: Any,
) -> None:
    for validator, arguments in validators:
        try:
            if arguments == 1:
                data[key] = validator(data.get(key))
            elif arguments == 2:
                data[key] = validator(data.get(key), context)
            elif arguments == 4:
                validator(key, data, errors, context)
            else:
                core.convert(validator, key, data, errors, context)
        except Invalid as error:
            errors[key].append(error.error)
        except StopOnError:
            return


def _order(key: Key) -> Key:
    return (len(key), *key)


def _unflatten(data: dict[Key, Any]) -> dict[str, Any]:
    """As core's, each list and dictionary looked up once."""
    by_parent: dict[Key, list[Key]] = {}
    for key in data:
        by_parent.setdefault(key[:-1], []).append(key)
    whole: dict[str, Any] = {}
    with_gaps: dict[int, list[Any]] = {}
    for parent in sorted(by_parent, key=_order):
        position: Any = whole
        for name in parent:
            try:
                position = position[name]
            except IndexError:
                while True:
                    new: dict[str, Any] = {}
                    position.append(new)
                    if name < len(position):
                        break
                    with_gaps[id(position)] = position
                position = new
            except KeyError:
                position[name] = position = []
        for key in sorted(by_parent[parent]):
            position[key[-1]] = data[key]
    for gaps in with_gaps.values():
        gaps[:] = [each for each in gaps if each]
    return whole
