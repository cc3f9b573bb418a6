"""`make bench`: haaro's data planes beside plain forwarding, a C forwarder and other daemons."""
