"""What happened: records as columns, lines and counts. Knows records, not vCPUs."""
