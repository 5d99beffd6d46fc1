"""Train vision-language models to count one object at a time."""

from raydual.version import __version__

__all__ = ["__version__"]
