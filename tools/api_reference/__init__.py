"""The reference of the library, docs/api.md: a template, filled with the docstrings of the source.

python -m tools.api_reference      # writes it; a test says when that is due
"""
