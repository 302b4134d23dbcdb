"""The library's version: the one place."""

VERSION = "0.2.0"
