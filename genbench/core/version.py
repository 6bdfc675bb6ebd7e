"""The version of genbench; part of the key of every cell."""

VERSION = "0.1.0"
