"""The library's version: the one place."""

VERSION = "0.1.0"
