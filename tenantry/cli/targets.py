"""What `tenantry run` can run: shipped workers by name, services as MODULE:ATTR."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tenantry.cli.usage import UsageError
from tenantry.errors import DeclarationError, SetupError
from tenantry.local.mesh import is_target
from tenantry.service.service import Service

WORKERS = "tenantry.workers"
_EXAMPLES = "examples"
_LIBRARY = str(Path(__file__).resolve().parent.parent)


def shipped(name: str) -> EntryPoint | None:
    """The worker of this name among those that packages ship."""
    return next(iter(entry_points(group=WORKERS, name=name)), None)


def worker_class(entry: EntryPoint) -> Any:
    """Import a shipped worker. Raises :class:`SetupError`."""
    try:
        return entry.load()
    except Exception as error:  # noqa: BLE001  (whatever that package does at import)
        raise _not_importable(entry.value, error) from None


def check(target: str) -> str:
    """Return `target` if it names something that can be run; else raise :class:`UsageError`."""
    if not is_target(target) and shipped(target) is None:
        names = ", ".join(sorted(entry.name for entry in entry_points(group=WORKERS)))
        raise UsageError(
            f"{target!r} is neither a worker nor MODULE:ATTR",
            hint=f"workers: {names or 'none is installed'}; a service is written like "
            "shop.orders:service",
        )
    return target


def service(target: str) -> Service:
    """Import `MODULE:ATTR`, a :class:`Service`. Raises :class:`SetupError`, or what it declares."""
    name, _, path = target.partition(":")
    found: Any = _module(name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SetupError(f"{name} has no attribute {path}", hint=_services_in(name)) from None
    if not isinstance(found, Service):
        raise SetupError(
            f"{target} is not a tenantry.Service but {type(found).__name__}",
            hint=_services_in(name),
        )
    return found


def _module(name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == _EXAMPLES and importlib.util.find_spec(f"tenantry.{_EXAMPLES}"):
            return importlib.import_module(f"tenantry.{name}")  # outside a checkout: the wheel's
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise SetupError(
                f"there is no module {error.name}", hint=f"modules are looked for in {folder} too"
            ) from None
        raise _not_importable(name, error) from None
    except DeclarationError as error:
        raise DeclarationError(f"{error.message}, {_where(error)}", hint=error.hint) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever it does at import)
        raise _not_importable(name, error) from None


def _not_importable(name: str, error: BaseException) -> SetupError:
    last = traceback.format_exception_only(error)[-1].strip()
    return SetupError(f"{name} can't be imported: {last}, {_where(error)}")


def _where(error: BaseException) -> str:
    """File and line of a fault: the last frame that is neither ours nor the import system's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_LIBRARY, "<"))
    ]
    outside = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{_short(outside[-1].filename)}:{outside[-1].lineno}" if outside else "at import"


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _services_in(name: str) -> str:
    """What could have been meant."""
    module = sys.modules.get(name)
    found = [attr for attr, value in vars(module).items() if isinstance(value, Service)]
    if not found:
        return f"{name} holds no service"
    return f"it has {', '.join(f'{name}:{attr}' for attr in found)}"
