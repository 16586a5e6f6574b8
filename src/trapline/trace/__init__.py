"""What happened: records as values, columns, lines and counts, and conditions on them. Knows records, not vCPUs."""
