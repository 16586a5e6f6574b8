"""The Debug Adapter Protocol: VS Code and other editors drive a `Target`.

Names and values are those of the protocol's specification: https://microsoft.github.io/debug-adapter-protocol/.
"""
