"""The version of raydual, in one place."""

__version__ = "0.1.0"
