"""Recipes: a YAML file becomes one checked, frozen configuration with a hash.

Bundled recipes are the YAML files in `datagen/bundled/` and `vae/bundled/`, the first line says what each is for.
"""

import difflib
import hashlib
import importlib.metadata
import json
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput

R = TypeVar("R", bound=Config)

_MAX_RECIPE_BYTES = 1 << 20

BUNDLED = Path(__file__).parent / "bundled"
"""The recipes of the data engine."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML 1.2, section 3.2.1.3); SafeLoader takes the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def bundled_recipes(folder: Path) -> dict[str, str]:
    """Name -> first comment line of every recipe file in `folder`, sorted by name."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first_line = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first_line.removeprefix("#").strip()
    return found


def find_recipe(name_or_path: str, folders: Sequence[Path]) -> Path:
    """The file of a bundled recipe by name, or the given path. Raises BadInput naming the nearest bundled one."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise BadInput(f"{path}: no such recipe file")
    names = [name for folder in folders for name in bundled_recipes(folder)]
    for folder in folders:
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    nearest = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.0)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise BadInput(f"{name_or_path}: no bundled recipe of that name (a recipe of yours ends in .yaml){hint}")


def recipe_kind(path: Path) -> str:
    """The value of the top-level key `kind`. Raises BadInput when the file is no recipe."""
    data, _ = _parse(path)
    kind = data.get("kind")
    if not isinstance(kind, str):
        raise BadInput(f"{path}: the key 'kind' is missing; a recipe begins with kind: generate, filter or train")
    return kind


def load_recipe(path: Path, model: type[R], overrides: Sequence[str] = ()) -> R:
    """Read a recipe file as a `model`, with `key.sub=value` overrides applied (values are YAML; list items by number).

    Raises BadInput with the line and, for an unknown key, the nearest known one.
    """
    data, root = _parse(path)
    overridden = [_apply_override(data, override) for override in overrides]
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise BadInput(_explain(problem, model, root, path, overridden)) from None


def override(data: dict[str, Any], overrides: Sequence[str], model: type[R]) -> R:
    """`data` with `key.sub=value` overrides applied, as a `model`. Raises BadInput."""
    overridden = [_apply_override(data, override) for override in overrides]
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        root = yaml.MappingNode("tag:yaml.org,2002:map", [], yaml.Mark("settings", 0, 0, 0, "", 0))
        raise BadInput(_explain(problem, model, root, Path("settings"), overridden)) from None


def _parse(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    try:
        if path.stat().st_size > _MAX_RECIPE_BYTES:
            raise BadInput(f"{path}: over 1 MiB, this is no recipe")
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_UniqueKeyLoader)
        data = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8 text, so it is no recipe") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path}, line {line}: not valid YAML ({error.problem})") from None
    if not isinstance(data, dict) or root is None:
        raise BadInput(f"{path}: a recipe is a mapping of keys to values, this file holds {type(data).__name__}")
    return data, root


def _apply_override(data: dict[str, Any], override: str) -> tuple[str, ...]:
    dotted, equals, value = override.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals or not all(keys):
        raise BadInput(f"override {override!r}: write it as key.sub=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f"override {override!r}: the value is not valid YAML") from None
    at: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                raise BadInput(
                    f"override {override!r}: {'.'.join(keys[:depth])} is a list of {len(at)}, give a number below that"
                )
            index: Any = int(key)
        elif isinstance(at, dict):
            index = key
            if not last and at.get(key) is None:
                at[key] = {}
        else:
            raise BadInput(f"override {override!r}: {'.'.join(keys[:depth])} is a single value, it has no key {key!r}")
        if last:
            at[index] = parsed
        else:
            at = at[index]
    return keys


def _explain(
    problem: ValidationError, model: type[BaseModel], root: yaml.Node, path: Path, overridden: Sequence[tuple[str, ...]]
) -> str:
    # An unknown key often causes the missing-key errors beside it, so it is named first.
    errors = sorted(problem.errors(), key=lambda error: error["type"] != "extra_forbidden")
    error = errors[0]
    location = tuple(str(part) for part in error["loc"])
    line, known = _line_of(root, location)
    dotted = ".".join(known) or "the recipe"
    where = f"{path}, line {line}"
    if any(location[: len(keys)] == keys for keys in overridden):
        where = f"override {'.'.join(location)}"
    if error["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        key = location[-1]
        inside = f" in {'.'.join(location[:-1])}" if len(location) > 1 else ""
        nearest = difflib.get_close_matches(key, list(owner.model_fields), n=1, cutoff=0.0) if owner else []
        return f"{where}: unknown key {key!r}{inside}" + (
            f"; the nearest known key is {nearest[0]!r}" if nearest else ""
        )
    if error["type"] == "missing":
        return f"{where}: the key {'.'.join(location)!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {dotted}: {message[0].lower()}{message[1:]}, got {error['input']!r}{others}"


def _line_of(root: yaml.Node, location: Sequence[str]) -> tuple[int, list[str]]:
    """The 1-based line of the deepest part of `location` that stands in the file, and that part."""
    line, node, known = root.start_mark.line + 1, root, []
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                if key_node.value == part:
                    line, node = key_node.start_mark.line + 1, value_node
                    known.append(part)
                    break
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            known.append(part)
    return line, known


def _model_at(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """The configuration class whose keys stand at `location`."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        deeper = [
            inner
            for owner in candidates
            if part in owner.model_fields
            for inner in _models_in(owner.model_fields[part].annotation)
        ]
        candidates = deeper or candidates  # list numbers and union tags lead to no new class
    return candidates[-1] if candidates else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def recipe_hash(recipe: Config) -> str:
    """First 16 hex digits of the SHA-256 of every resolved value: equal hashes mean equal recipes, however written."""
    canonical = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def recipe_to_yaml(recipe: Config) -> str:
    """The resolved recipe, every default written out; `load_recipe` reads it back to an equal one."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def describe_recipe(recipe: Config, indent: int = 0) -> str:
    """The resolved recipe as YAML with the meaning of every field as a comment above it."""
    lines: list[str] = []
    pad = "  " * indent
    for name, field in type(recipe).model_fields.items():
        for comment_line in (field.description or "").strip().splitlines():
            lines.append(f"{pad}# {comment_line.strip()}".rstrip())
        lines.extend(_describe_value(name, getattr(recipe, name), indent))
    return "\n".join(lines)


def _describe_value(name: str, value: Any, indent: int) -> list[str]:
    pad = "  " * indent
    if isinstance(value, Config):
        return [f"{pad}{name}:", describe_recipe(value, indent + 1)]
    if isinstance(value, tuple | list) and value and isinstance(value[0], Config):
        lines = [f"{pad}{name}:"]
        for number, item in enumerate(value):
            # Every item's meaning is the same: it is written once.
            body = describe_recipe(item, indent + 1) if number == 0 else _plain_yaml(item, indent + 1)
            lines.append(f"{pad}-")
            lines.append(body)
        return lines
    plain = yaml.safe_dump(_jsonable(value), sort_keys=False, allow_unicode=True, width=120, default_flow_style=True)
    return [f"{pad}{name}: {plain.strip().removesuffix('...').strip()}"]


def _plain_yaml(recipe: Config, indent: int) -> str:
    return "\n".join("  " * indent + line for line in recipe_to_yaml(recipe).rstrip().splitlines())


def _jsonable(value: Any) -> Any:
    return json.loads(
        json.dumps(
            value, default=lambda other: other.model_dump(mode="json") if isinstance(other, BaseModel) else str(other)
        )
    )


def library_versions(distributions: Sequence[str]) -> dict[str, str]:
    """Installed version of each named distribution; "absent" when it is not installed."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
