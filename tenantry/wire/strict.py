"""Finds fields of a body that its type does not declare: msgspec passes over them in silence.

It walks through the body as plain JSON, after that was found to fit the type, so it need not check
anything else. For a small body this costs about a microsecond.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import inspect

_OBJECTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
_ARRAYS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)


class Unknown(NamedTuple):
    """A field that is not declared."""

    field: str
    path: str
    """The path of its object, as in `$.items[0]`."""
    declared: tuple[str, ...]
    """The fields that this object may have."""


class _Node:
    """A part of a type: what an object, and what an array in its place may hold."""

    __slots__ = ("fields", "items", "places", "tag_field", "tags", "union", "values")

    def __init__(self) -> None:
        self.fields: dict[str, _Node] | None = None
        """Of an object with a fixed set of fields."""
        self.values: _Node | None = None
        """Of an object with any keys."""
        self.items: _Node | None = None
        self.places: tuple[_Node, ...] = ()
        """Of an array in which each place has a type of its own."""
        self.union: list[_Node] = []
        """The members of a union, at most one of which takes an object without a tag."""
        self.tag_field = ""
        self.tags: dict[Any, _Node] = {}

    @property
    def is_leaf(self) -> bool:
        """True if nothing in its place is looked into."""
        looked_into = (self.values, self.items, *self.places, *self.union, *self.tags)
        return self.fields is None and not any(part is not None for part in looked_into)

    def find(self, value: Any, path: str) -> Unknown | None:
        """The first unknown field in a value that fits; None where there is none."""
        if isinstance(value, dict):
            return self._in_object(value, path)
        if isinstance(value, list):
            for index, part in enumerate(value):
                node = self.places[index] if index < len(self.places) else self.items
                if node is not None and (found := node.find(part, f"{path}[{index}]")):
                    return found
        return self._in_union(value, path)

    def _in_object(self, value: dict[str, Any], path: str) -> Unknown | None:
        if self.tags and (tagged := self.tags.get(value.get(self.tag_field))) is not None:
            return tagged.find(value, path)
        fields, values = self.fields, self.values
        for key, part in value.items():
            node = values if fields is None else fields.get(key)
            if node is None:
                if fields is not None:
                    return Unknown(key, path, tuple(fields))
            elif isinstance(part, dict | list) and (found := node.find(part, f"{path}.{key}")):
                return found
        return self._in_union(value, path)

    def _in_union(self, value: Any, path: str) -> Unknown | None:
        for node in self.union:
            if found := node.find(value, path):
                return found
        return None


class Fields:
    """The fields that a type declares, in all its depth; made once for each action."""

    def __init__(self, kind: Any) -> None:
        self._known: dict[int, _Node] = {}
        self._root = self._node(inspect.type_info(kind))
        fields = self._root.fields
        flat = fields is not None and all(node.is_leaf for node in fields.values())
        self._flat = frozenset(fields) if fields is not None and flat else None
        """The fields of an object without objects in it, as most bodies are."""

    def unknown(self, value: Any) -> Unknown | None:
        """The first field in plain JSON that is not declared; None where there is none."""
        if self._flat is not None and isinstance(value, dict) and value.keys() <= self._flat:
            return None  # at a tenth of the price
        return self._root.find(value, "$")

    def _node(self, info: inspect.Type) -> _Node:
        if (known := self._known.get(id(info))) is not None:
            return known
        # Before its parts: a type may contain itself.
        node = self._known[id(info)] = _Node()
        if isinstance(info, inspect.Metadata):
            node.union.append(self._node(info.type))
        elif isinstance(info, _OBJECTS):
            self._fill(node, info)
        elif isinstance(info, inspect.DictType):
            node.values = self._node(info.value_type)
        elif isinstance(info, _ARRAYS):
            node.items = self._node(info.item_type)
        elif isinstance(info, inspect.TupleType):
            node.places = tuple(map(self._node, info.item_types))
        elif isinstance(info, inspect.UnionType):
            for each in info.types:
                self._add(node, each)
        return node

    def _fill(
        self,
        node: _Node,
        info: inspect.StructType | inspect.DataclassType | inspect.TypedDictType,
    ) -> None:
        """Note the fields of an object; a struct that is written as an array has no names."""
        tag = None
        if isinstance(info, inspect.StructType):
            if info.array_like:
                return
            tag = info.tag_field
        node.fields = {each.encode_name: self._node(each.type) for each in info.fields}
        if tag is not None:
            node.fields[tag] = _Node()

    def _add(self, union: _Node, info: inspect.Type) -> None:
        member = self._node(info)
        if isinstance(info, inspect.StructType) and info.tag_field is not None:
            union.tag_field = info.tag_field
            union.tags[info.tag] = member
        else:
            union.union.append(member)
