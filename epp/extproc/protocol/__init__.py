"""Envoy's ext_proc messages as upb classes, which parse a hundred times faster than pure Python ones.

scripts/protocol generates the classes from the .proto files. Names on the wire are Envoy's own.
"""
