"""What users write, as values: kinds, names, validation, and the values that the engines hand to each other.

Pure: nothing here does I/O or reads a clock. It owns the spelling of every YAML key and annotation.
"""
