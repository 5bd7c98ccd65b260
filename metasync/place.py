"""The two top-level packages that metasync is made of have names that other people use, too: whose is which."""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

PACKAGES = ("config", "worker")
_ROOT = Path(__file__).resolve().parents[1]


def check_ours(name: str) -> None:
    """Check that an import of this name finds metasync's own package.

    Raises:
        ImportError: it finds another project's. The message says whose.
    """
    module = sys.modules.get(name)
    spec = find_spec(name) if module is None else getattr(module, "__spec__", None)
    if spec is not None and _is_ours(name, spec.origin):
        return
    theirs = getattr(module, "__file__", None) or (spec.origin if spec else None) or "somebody else's"
    raise ImportError(
        f"{theirs} stands in the way: metasync needs a package of its own by the name {name!r}; rename that file, take "
        "its folder off the import path, or enqueue by the command, over HTTP or in SQL"
    )


def take_ours() -> None:
    """Make the names mean metasync's packages in this process, with anything else on the import path.

    For the command, which has the process to itself. Its own folder, and the folder in which it was started, are not on
    its import path, as with ``python -P``.
    """
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() != _ROOT:
        del sys.path[0]
    for name in PACKAGES:
        if name in sys.modules and _is_ours(name, getattr(sys.modules[name], "__file__", None)):
            continue
        spec = PathFinder.find_spec(name, [str(_ROOT)])
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"there is no {_ROOT / name}", name=name)
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def explained(error: ImportError) -> str | None:
    """Say what is wrong where a part of ours cannot be imported; None where it is no part of ours."""
    name = (error.name or "").partition(".")[0]
    if name not in PACKAGES:
        return None
    return (
        f"{_ROOT / name} is not whole ({error}): another package may have put files of its own there, or taken "
        "ours away; install metasync into an environment of its own, by pipx or uv tool"
    )


def _is_ours(name: str, origin: str | None) -> bool:
    return origin is not None and Path(origin).resolve() == _ROOT / name / "__init__.py"
