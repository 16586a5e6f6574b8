"""An MCP server: agents run guests, stop them where an exception is raised, and read traces (docs/agents.md).

`mcp`, the SDK, is the optional extra of that name, and is imported here alone.
"""
