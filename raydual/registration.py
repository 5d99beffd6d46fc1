"""Make `AutoModel.from_pretrained` of transformers know the models of this package.

Registering a model needs transformers and torch, which take seconds to load, and most commands need
neither. So it is done when transformers loads its Auto classes.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_CLASSES = "transformers.models.auto.modeling_auto"
OWN_MODELS = "raydual.model.pyramid"
"""Registers what it defines when it is imported."""


def register_models() -> None:
    """Register the models now where the Auto classes are loaded, else as soon as they are."""
    if AUTO_CLASSES in sys.modules:
        import_module(OWN_MODELS)
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the Auto classes to be imported, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module of the Auto classes as Python would; leave all others to it."""
        if fullname != AUTO_CLASSES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as another loader does, then registers our models."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register our models with its classes."""
        self._loader.exec_module(module)
        import_module(OWN_MODELS)
