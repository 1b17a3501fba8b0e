"""Renders the models as CustomResourceDefinitions, so that the schema users meet is the one the code parses.

Pydantic emits JSON Schema 2020-12; the API server wants a *structural* schema (apiextensions.k8s.io/v1,
"Specifying a structural schema"): no ``$ref``, no ``anyOf`` around optional values, no titles. What a schema
cannot say (columns, rules, status defaults) comes from each kind's ``KindInfo``.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from triplane.api.kinds import KINDS
from triplane.api.meta import NEVER, Column, KindInfo, Resource
from triplane.api.text import GROUP, VERSION

CATEGORY = "triplane"
"""``kubectl get triplane`` lists every kind of the group."""
PENDING_REASON = "Pending"
PENDING_MESSAGE = "Not yet observed by the operator"

_KEPT = (
    "type",
    "format",
    "description",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
)
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. "
    "Servers convert recognized schemas to the latest internal value, and may reject unrecognized values."
)
_KIND = "Kind is a string value representing the REST resource this object represents, in CamelCase."
_INT32_MAX = 2**31 - 1


def render(kind_cls: type[Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1) of one kind.

    Deterministic: equal models give equal dictionaries, key order included. The status subresource is on for
    every kind that has a status, with defaults such that the first GET shows the summary condition Unknown.
    """
    info = kind_cls.info
    kind = kind_cls.kind_name()
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema(kind_cls)},
        "additionalPrinterColumns": [_column(column) for column in (*info.columns, _AGE)],
    }
    if info.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in info.selectable]
    if info.ready_condition is not None:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{info.plural}.{GROUP}",
            "labels": {
                "app.kubernetes.io/name": "triplane",
                "app.kubernetes.io/component": "crds",
            },
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": info.plural,
                "singular": kind.lower(),
                "shortNames": list(info.short_names),
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def render_all() -> list[dict[str, Any]]:
    """The definitions of all kinds, in the order of ``KINDS``."""
    return [render(kind_cls) for kind_cls in KINDS.values()]


def schema(kind_cls: type[Resource]) -> dict[str, Any]:
    """The structural schema of a whole object: spec with its CEL rules, status with its defaults."""
    info = kind_cls.info
    spec = structural(_model(kind_cls, "spec"))
    if info.spec_rules:
        spec["x-kubernetes-validations"] = [
            {"rule": rule.rule, "message": rule.message} | ({"fieldPath": rule.field_path} if rule.field_path else {})
            for rule in info.spec_rules
        ]
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    if info.ready_condition is not None:
        properties["status"] = {"default": status_default(info), **structural(_model(kind_cls, "status"))}
    return {
        "type": "object",
        "description": _prose(kind_cls.__doc__ or ""),
        "required": ["spec"],
        "properties": properties,
    }


def status_default(info: KindInfo) -> dict[str, Any]:
    """The status of an object nobody has observed yet: the summary condition is Unknown, never absent."""
    return {
        **info.status_defaults,
        "observedGeneration": 0,
        "conditions": [
            {
                "type": info.ready_condition,
                "status": "Unknown",
                "observedGeneration": 0,
                "lastTransitionTime": NEVER,
                "reason": PENDING_REASON,
                "message": PENDING_MESSAGE,
            }
        ],
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """A model's structural schema.

    Raises ValueError for what a structural schema cannot say (unions, recursion, open maps): such a model
    is a mistake in this package, never in a user's input.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    definitions = document.pop("$defs", {})
    return _convert(document, definitions, (model.__name__,))


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    flat = _flatten(node, definitions, path)
    if "const" in flat:
        flat["enum"] = [flat["const"]]
    result = {key: flat[key] for key in _KEPT if key in flat}
    if "description" in result:
        result["description"] = _prose(result["description"])
    result |= {key: value for key, value in flat.items() if key.startswith("x-kubernetes-")}
    if isinstance(flat.get("default"), str | int | bool):
        result["default"] = flat["default"]
    if result.get("type") == "integer":
        result["format"] = "int32" if flat.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    if "items" in flat:
        result["items"] = _convert(flat["items"], definitions, (*path, "[]"))
    if "properties" in flat:
        result["properties"] = {
            name: _convert(child, definitions, (*path, name)) for name, child in flat["properties"].items()
        }
        if flat.get("required"):
            result["required"] = list(flat["required"])
    elif isinstance(flat.get("additionalProperties"), dict):  # a map; a rule of its kind says what keys may be
        result["additionalProperties"] = _convert(flat["additionalProperties"], definitions, (*path, "{}"))
    elif result.get("type") == "object" and not result.get("x-kubernetes-preserve-unknown-fields"):
        raise ValueError(f"{'.'.join(path)}: an object without properties must preserve unknown fields")
    if "type" not in result:
        raise ValueError(f"{'.'.join(path)}: no single type: a structural schema has no unions")
    return result


def _flatten(node: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Follow ``$ref`` and drop ``null`` alternatives; what stands nearer to the field wins."""
    flat = dict(node)
    if reference := flat.pop("$ref", None):
        name = reference.rpartition("/")[2]
        if len(path) > 32:
            raise ValueError(f"{'.'.join(path)}: {name} is recursive")
        return _flatten(definitions[name], definitions, path) | flat
    for key in ("anyOf", "allOf"):
        if alternatives := flat.pop(key, None):
            kept = [choice for choice in alternatives if choice.get("type") != "null"]
            if len(kept) != 1:
                raise ValueError(f"{'.'.join(path)}: a structural schema has no unions")
            return _flatten(kept[0], definitions, path) | flat
    return flat


def _model(kind_cls: type[Resource], name: str) -> type[BaseModel]:
    """The model class of ``spec`` or ``status``, also where the annotation is ``X | None``."""
    annotation = kind_cls.model_fields[name].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))


_AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _column(column: Column) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        rendered["description"] = column.description
    if column.priority:
        rendered["priority"] = column.priority
    return rendered


def _prose(text: str) -> str:
    """Docstrings say ``code``, ``kubectl explain`` and Markdown `code`. Lines are joined: clients wrap."""
    return " ".join(text.replace("``", "`").split())
