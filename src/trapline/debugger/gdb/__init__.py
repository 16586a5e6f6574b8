"""A server for the remote protocol of GDB: packets and stub are pure, one loop has the sockets."""
