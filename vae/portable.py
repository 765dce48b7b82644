"""The autoencoder's class as one file that needs torch, NumPy and diffusers alone, made from its own source.

It travels with saved weights, so that `diffusers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` opens them
where Glyphmill is not installed.
"""

import ast
from pathlib import Path

CLASS_FILE = "gsc_autoencoder"
"""Name of the file without its suffix, as `auto_map` in config.json has it."""

_PARTS = ("fused", "skip", "blocks", "model")
"""The files that the class is made of, each using only those before it."""

_HEADER = '''"""The GSC autoencoder of Glyphmill (Apache-2.0) in one file, put together by its `vae/portable.py`.

    vae = diffusers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    latents = vae.encode(pictures).latent_dist.mode()
    pictures = vae.decode(latents).sample
"""
'''

_OWN_SOURCE = f'''CLASS_FILE = "{CLASS_FILE}"


def portable_source() -> str:
    """This file."""
    return Path(__file__).read_text(encoding="utf-8")
'''


def portable_source() -> str:
    """The text of the file: the imports of all parts, each once, then the parts one after the other.

    Raises ValueError when two parts define one name.
    """
    modules: set[str] = set()
    members: dict[str, set[str]] = {}
    names = {"CLASS_FILE", "portable_source"}
    bodies = []
    for part in _PARTS:
        text = Path(__file__).with_name(f"{part}.py").read_text(encoding="utf-8")
        statements, lines = ast.parse(text).body, text.splitlines()
        body_starts = 0
        for statement in statements:
            match statement:
                case ast.Import(names=[ast.alias(name=name, asname=alias)]):
                    modules.add(f"import {name} as {alias}" if alias else f"import {name}")
                case ast.ImportFrom(module=str(module), names=aliases):
                    members.setdefault(module, set()).update(alias.name for alias in aliases)
                case ast.Expr(value=ast.Constant()):
                    continue
                case _:
                    body_starts = body_starts or statement.lineno - len(getattr(statement, "decorator_list", ())) - 1
                    if twice := names & _defined(statement):
                        raise ValueError(f"{part}.py gives {', '.join(sorted(twice))} another meaning")
                    names |= _defined(statement)
        comment = "\n".join(f"# {line}".rstrip() for line in (ast.get_docstring(ast.parse(text)) or "").splitlines())
        bodies.append(f"{comment}\n\n" + "\n".join(lines[body_starts:]))
    imported = [f"from {module} import {', '.join(sorted(members[module]))}" for module in sorted(members)]
    imports = "\n".join(sorted(modules) + [line for line in imported if not line.startswith("from vae.")])
    return "\n\n\n".join((f"{_HEADER}\n{imports}", _OWN_SOURCE.rstrip(), *bodies)) + "\n"


def _defined(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement gives."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()
