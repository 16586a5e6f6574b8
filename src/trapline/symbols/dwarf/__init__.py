"""What of DWARF names the source lines of addresses, versions 2 to 5: read within bounds, whatever the file holds."""
